"""What is done, counted from the files alone."""

import hashlib
import json
import shutil

import pytest

from orchestrator.__main__ import main
from orchestrator.cli import words
from orchestrator.errors import JobError
from orchestrator.job import spec
from orchestrator.output import ledger as ledgers
from orchestrator.planning import status
from worker import protocol, schema
from worker.protocol import Failure


def counts(surveyed, model="prosody"):
    found = status.of_job(surveyed.job).models[model]
    return found.done, found.pending, found.failed, found.stale, found.orphaned


def test_before_the_first_run_everything_is_pending(prepare):
    assert counts(prepare()) == (0, 3, {}, 0, 0)


def test_after_a_run_everything_is_done(prepare, work):
    work(prepare())
    assert counts(prepare()) == (3, 0, {}, 0, 0)


def test_while_a_run_goes_its_records_count(prepare, work):
    surveyed = prepare(limit=2)
    work(surveyed, fold=False)
    host = protocol.Channel(str(surveyed.output.records / "run-host.jsonl"))
    assert status.of_job(prepare().job).running
    assert counts(prepare()) == (2, 1, {}, 0, 0)
    host.close()
    assert not status.of_job(prepare().job).running


def test_failures_are_counted_by_class_with_their_reasons(prepare, work):
    failing = {("a.wav", "prosody"): "decode", ("b.wav", "prosody"): "decode", ("deep/c.wav", "crepe"): "memory"}
    work(prepare(models=["prosody", "crepe"]), failing=failing)
    found = prepare(models=["prosody", "crepe"])
    assert counts(found) == (1, 0, {"decode": 2}, 0, 0)
    assert counts(found, "crepe") == (2, 1, {"memory": 1}, 0, 0)  # tried again, so pending as well
    reasons = [(f.item, f.model, f.kind, f.message) for f in status.of_job(found.job).failures]
    assert reasons == [
        ("a.wav", "prosody", "decode", "because"),
        ("b.wav", "prosody", "decode", "because"),
        ("deep/c.wav", "crepe", "memory", "because"),
    ]


def test_failures_of_items_that_left_the_job_are_not_told(prepare, work, tmp_path):
    work(prepare(), failing={("a.wav", "prosody"): "decode"})
    (tmp_path / "audio/a.wav").unlink()
    assert counts(prepare()) == (2, 0, {}, 0, 0)


def test_arrays_of_other_parameters_are_stale(prepare, work):
    work(prepare(limit=2))
    assert counts(prepare(models=[{"name": "prosody", "params": {"hop_ms": 20}}])) == (0, 3, {}, 2, 0)


def test_arrays_that_nobody_names_are_orphaned(prepare, work, tmp_path):
    work(prepare(models=[{"name": "prosody", "outputs": ["features", "voiced"]}]))
    (tmp_path / "out/prosody/stranger.npy").touch()
    (tmp_path / "out/prosody/.x.part").touch()
    assert counts(prepare()) == (3, 0, {}, 0, 1)
    (tmp_path / "audio/a.wav").unlink()
    assert counts(prepare()) == (2, 0, {}, 0, 3)  # both arrays of a.wav


def test_looking_changes_nothing(prepare, work, tmp_path):
    work(prepare(limit=2), fold=False)
    before = sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    status.of_job(prepare().job)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def keep_job(surveyed):
    run = surveyed.output.new_run()
    run.job.write_text(json.dumps(schema.dump(surveyed.job)))
    run.items.write_text("".join(json.dumps({"id": c.source.id}) + "\n" for c in surveyed.plan.choices))
    run.plan.write_text("{}")


def test_a_folder_knows_the_job_that_wrote_it(prepare, work, tmp_path):
    keep_job(prepare())
    work(prepare())
    assert status.of_output(str(tmp_path / "out")).models["prosody"].done == 3
    (tmp_path / "out").rename(tmp_path / "moved")
    assert status.of_output(str(tmp_path / "moved")).models["prosody"].done == 3


def test_a_folder_tells_its_status_when_the_audio_is_out_of_reach(prepare, work, tmp_path):
    keep_job(prepare())
    work(prepare(), failing={("b.wav", "prosody"): "decode"})
    shutil.rmtree(prepare().audio.root)
    found = status.of_output(str(tmp_path / "out")).models["prosody"]
    assert (found.done, found.pending, found.failed) == (2, 0, {"decode": 1})


@pytest.mark.parametrize("change", [{"resume": "never"}, {"retry_failed": True}, {"limit": 1}])
def test_how_a_run_was_asked_for_does_not_change_what_is_done(prepare, work, tmp_path, change):
    keep_job(prepare(**change))
    work(prepare(), failing={("b.wav", "prosody"): "decode"})
    found = status.of_output(str(tmp_path / "out")).models["prosody"]
    assert (found.done, found.pending, found.failed) == (2, 0, {"decode": 1})


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(JobError, match="no run has written here"):
        status.of_output(str(tmp_path))


@pytest.fixture
def job_file(prepare, work, tmp_path):
    work(prepare(), failing={("b.wav", "prosody"): "decode"})
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"audio": "audio", "output": "out", "models": ["prosody"]}))
    return str(path)


def test_the_command_prints_a_table_and_the_reasons(job_file, capsys):
    assert main(["status", job_file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["model", "done", "pending", "failed", "stale", "orphaned", "device"]
    assert lines[2].split() == ["prosody", "2", "0", "1", "decode", "0", "0", "?"]
    assert lines[3].split() == ["decode", "b.wav:", "because", "(prosody)"]


def test_a_reason_names_its_item_once(capsys):
    reasons = ("a.wav: broken", "in/a.wav: broken", "in/a\n\udcff.wav: broken", "broken")
    items = ("in/a.wav", "in/a.wav", "in/a\n\udcff.wav", "in/a.wav")
    words.print_failures([Failure(i, "crepe", "decode", r, "") for i, r in zip(items, reasons, strict=True)], True)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(maxsplit=1)[1] for line in lines} == {
        "in/a.wav: broken  (crepe)",
        "in/a\\n\\udcff.wav: broken  (crepe)",
    }


def test_the_command_prints_json(job_file, capsys):
    assert main(["status", "--json", job_file]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = {
        "done": 2,
        "pending": 0,
        "failed": {"decode": 1},
        "stale": 0,
        "orphaned": 0,
        "waiting": 0,
        "devices": ["?"],
    }
    assert found["models"]["prosody"] == counts
    assert found["failures"][0]["item"] == "b.wav" and found["running"] is False


def test_many_failures_are_cut_short_unless_asked_for(prepare, work, write_wav, tmp_path, capsys, job_file):
    names = [f"{n:02}.wav" for n in range(12)]
    for number, name in enumerate(names):
        write_wav(tmp_path / "audio" / name, number)
    work(prepare(), failing={(name, "prosody"): "decode" for name in names})
    main(["status", job_file])
    assert "... and 3 more; --verbose lists them all" in capsys.readouterr().out
    main(["status", "--verbose", job_file])
    assert "11.wav: because" in (said := capsys.readouterr().out) and "more;" not in said


def test_a_manifest_that_was_lost_is_rebuilt_from_nothing_but_its_records(prepare, work):
    surveyed = prepare()
    work(surveyed, fold=False)
    ledgers.fold(surveyed.output)
    first = hashlib.sha256(surveyed.output.manifest.read_bytes()).hexdigest()
    work(prepare(resume="never"), run_id="again")
    assert hashlib.sha256(surveyed.output.manifest.read_bytes()).hexdigest() == first
    assert spec.check(schema.dump(surveyed.job)) == surveyed.job


def test_a_folder_tells_of_the_models_of_other_jobs_too(prepare, work, tmp_path):
    work(prepare())
    second = prepare(models=["crepe"])
    keep_job(second)
    work(second)
    found = status.of_output(str(tmp_path / "out")).models
    assert {name: (count.done, count.pending) for name, count in found.items()} == {"crepe": (3, 0), "prosody": (3, 0)}


def test_an_array_whose_source_fails_by_now_is_stale(prepare, work, tmp_path, write_wav):
    work(prepare())
    write_wav(tmp_path / "audio" / "b.wav", value=9)
    work(prepare(), failing={("b.wav", "prosody"): "empty"})
    assert counts(prepare()) == (2, 0, {"empty": 1}, 1, 0)


def test_an_output_that_is_no_longer_asked_for_is_stale_once_the_parameters_changed(prepare, work):
    work(prepare(models=[{"name": "prosody", "outputs": ["features", "voiced"]}]))
    assert counts(prepare()) == (3, 0, {}, 0, 0)
    other = [{"name": "prosody", "params": {"hop_ms": 20}}]
    work(prepare(models=other))
    assert counts(prepare(models=other)) == (3, 0, {}, 3, 0)
