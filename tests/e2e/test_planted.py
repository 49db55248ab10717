"""Links, FIFOs and devices in an output folder: named, refused, and nothing outside the folder is touched."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import harness
import pytest
from harness import TONE
from victims import KINDS, Victim, refused

from orchestrator import files
from orchestrator.__main__ import main

INNER = ["", "lock", "records", "contexts", "scratch", "runs", "compose", "failures.jsonl", "sources.jsonl"]
DEEP = ["records/x.jsonl", "contexts/x.json", "scratch/x", "runs/x/logs/x.log", "compose/legacy-py37.json"]
PLACES = [f".consort/{name}".rstrip("/") for name in (*INNER, *DEEP)] + ["tone"]
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make devices, and write as another")


@pytest.fixture
def victim(tmp_path):
    return Victim(tmp_path / "victim")


@pytest.fixture
def job(audio, output):
    harness.write_wavs(audio, 2)
    return harness.write_job(output, audio, TONE)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return a folder with audio and what a job has written of it, to be copied."""
    folder = tmp_path_factory.mktemp("template")
    harness.write_wavs(folder / "audio", 2)
    assert harness.consort("extract", harness.write_job(folder / "out", folder / "audio", TONE)).returncode == 0
    return folder


@pytest.fixture
def finished(template, audio, output):
    """Return a job that is done: a copy with its times, as a run for each test would take minutes."""
    shutil.copytree(template / "audio", audio, dirs_exist_ok=True)
    shutil.copytree(template / "out", output)
    return harness.write_job(output, audio, TONE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["extract", "compose plan", "compose report"])
def test_what_was_planted_before_the_run_is_refused_by_name(verb, kind, job, output, victim, capsys):
    for place in PLACES if verb == "extract" else PLACES[-4:]:
        victim.plant(output / place, kind)
        code = main([*verb.split(), str(job)])  # in this process: a start of the command for each would take minutes
        assert code == 4
        words = capsys.readouterr().err
        assert words.startswith("consort: output ") and f"{place} is " in words and words.count("\n") == 1, words
        (output / place).unlink()
    assert victim.unharmed()
    victim.plant(output / place, kind)
    refused(harness.consort(*verb.split(), job, timeout=60), place)
    (output / place).unlink()
    assert harness.consort("extract", job).returncode == 0, "the advice helps"
    assert len(harness.manifest(output)) == 2 and victim.unharmed()


@pytest.mark.parametrize("kind", ["absolute", "relative", "fifo"])
@pytest.mark.parametrize("place", [".consort/records", ".consort/scratch", "tone"])
def test_a_finished_folder_with_something_planted_is_refused_with_nothing_to_do(place, kind, finished, output, victim):
    (output / place).rename(output / "aside")
    victim.plant(output / place, kind)
    refused(harness.consort("extract", finished, timeout=60), place)
    refused(harness.consort("verify", output, "--repair", timeout=60), place)
    assert victim.unharmed()
    (output / place).unlink()
    (output / "aside").rename(output / place)
    done = harness.consort("extract", finished)
    assert done.returncode == 0 and "0 of 2 items to do" in done.stderr


@pytest.mark.parametrize("name", ["manifest.jsonl", ".consort/records/x.jsonl", ".consort/lock"])
@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_fifo_keeps_nobody_waiting_who_only_reads(name, verb, finished, output):
    (output / name).unlink(missing_ok=True)
    os.mkfifo(output / name)
    done = harness.consort(verb, output, timeout=30)
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize("kind", ["fifo", "endless", "dangling", "folder", "garbage"])
@pytest.mark.parametrize("name", ["contexts", "job.yaml", "items.jsonl", "plan.json"])
def test_what_only_reads_answers_in_a_line_whatever_lies_there(name, kind, finished, output):
    run = harness.runs(output)[-1]
    place = next((output / ".consort" / "contexts").iterdir()) if name == "contexts" else run / name
    place.unlink()
    make = {
        "fifo": lambda: os.mkfifo(place),
        "endless": lambda: place.symlink_to("/dev/zero"),
        "dangling": lambda: place.symlink_to("nowhere"),
        "folder": place.mkdir,
        "garbage": lambda: place.write_bytes(b"\xff\x00[{"),
    }
    make[kind]()
    for verb in ("status", output), ("verify", output), ("plan", finished, "--resume", "strict"):
        done = harness.consort(*verb, timeout=30)
        assert "Traceback" not in done.stderr, done.stderr


def records(output):
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("where", ["../outside/link", "{}/outside/link", "tone/../../outside/link"])
@pytest.mark.parametrize("command", ["extract", "verify --repair"])
def test_a_path_in_a_manifest_removes_nothing_outside(command, where, finished, output, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "link").symlink_to(output / "tone" / "good_00.npy")
    changed = [{**r, "path": where.format(tmp_path), "key": "0", "sha256": "0" * 64} for r in records(output)[:1]]
    (output / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*changed, *records(output)[1:]]))
    words = ["extract", finished] if command == "extract" else ["verify", output, "--repair"]
    done = harness.consort(*words)
    assert "Traceback" not in done.stderr
    assert (outside / "link").is_symlink()


def test_an_array_that_is_a_link_is_none(finished, output, victim):
    """Neither done nor read into a table: it is made again, in the place of the link."""
    array = output / "tone" / "good_00.npy"
    before = array.read_bytes()
    array.unlink()
    (victim.folder / "other.npy").write_bytes(before)
    array.symlink_to(victim.folder / "other.npy")
    done = harness.consort("extract", finished)
    assert done.returncode == 0 and "1 of 2 items to do" in done.stderr
    assert not array.is_symlink() and array.read_bytes() == before


def test_links_beside_the_folders_of_models_are_the_users_own(finished, output, tmp_path):
    (output / "tone.notes.txt").symlink_to(tmp_path / "notes")
    assert harness.consort("extract", finished).returncode == 0


def test_the_log_of_a_build_is_not_written_through_a_link(tmp_path, victim):
    log = tmp_path / "build.log"
    log.symlink_to(victim.file)
    with files.open_log(log) as out:
        out.write("said")
    assert victim.unharmed() and log.read_text() == "said"


def test_a_manifest_that_is_a_link_is_read_and_replaced_not_followed(finished, output, tmp_path):
    kept = tmp_path / "kept.jsonl"
    (output / "manifest.jsonl").rename(kept)
    (output / "manifest.jsonl").symlink_to(kept)
    before = kept.read_bytes()
    done = harness.consort("extract", finished)
    assert done.returncode == 0 and "0 of 2 items to do" in done.stderr
    assert kept.read_bytes() == before == (output / "manifest.jsonl").read_bytes()
    assert not (output / "manifest.jsonl").is_symlink()


def test_the_sine_of_a_synthetic_job_goes_through_no_link(output, victim, tmp_path):
    job = harness.write_job(output, "synthetic", TONE)
    victim.plant(output / "tone", "absolute")
    refused(harness.consort("extract", job), "tone")
    assert victim.unharmed()
    (output / "tone").unlink()
    (output / "tone").mkdir()
    (output / "tone" / "synthetic_16khz_3.0s.wav").symlink_to(victim.file)
    assert harness.consort("extract", job).returncode == 0
    assert victim.unharmed()


INSIDE = ["records", "scratch", "contexts", "runs"]
PLANTS = [".consort", *(f".consort/{name}" for name in INSIDE), "planting", "EVENTS"]


@pytest.mark.parametrize(("kind", "then"), [("absolute", "go on"), ("relative", "die"), ("fifo", "go on")])
@pytest.mark.parametrize("place", PLANTS)
def test_what_a_worker_swaps_in_ends_the_run_in_order(place, then, kind, audio, output, victim):
    harness.write_wavs(audio, 3)
    params = {"place": place, "then": then, "kind": "fifo" if kind == "fifo" else "link"}
    where = output / (".consort/records" if place == "EVENTS" else pathlib.Path(place).parent)
    params["target"] = victim.target(where, kind)
    job = harness.write_job(output, audio, {"name": "planting", "extractor": "planting:Planting", "params": params})
    done = harness.consort("extract", job, timeout=60)
    refused(done, ".consort/records/" if place == "EVENTS" else place)
    assert victim.unharmed()
    refused(harness.consort("extract", job, timeout=60), ".consort/records/" if place == "EVENTS" else place)
    assert victim.unharmed()


@pytest.mark.parametrize("name", ["job.shards", "job.log", "job.scratch", "job.events"])
def test_names_that_a_worker_can_foretell_are_not_written_through(name, audio, output, victim):
    """The next attempt's shard, events and log have names that the first attempt's worker knows."""
    harness.write_wavs(audio, 2)
    params = {"place": "NEXT", "target": str(victim.file), "then": "die", "kind": "link"}
    model = {"name": "planting", "extractor": "planting:Foretelling", "params": {**params, "place": name}}
    done = harness.consort("extract", harness.write_job(output, audio, model), timeout=60)
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
    assert "remove it and run again" in done.stderr
    assert victim.unharmed()


@ROOT
@pytest.mark.parametrize(("kind", "again"), [("absolute", False), ("relative", True)])
@pytest.mark.parametrize("name", ["lock", "records", "contexts", "scratch", "runs"])
def test_root_gives_nothing_of_others_to_the_owner_of_the_folder(again, name, kind, job, output, victim):
    output.mkdir()
    os.chown(output, 1234, 2345)
    place = output / ".consort" / name
    if again:
        assert harness.consort("extract", job).returncode == 0
        place.unlink() if place.is_file() else place.rename(output / "aside")
    victim.plant(place, kind, file=name == "lock")
    refused(harness.consort("extract", job), f".consort/{name}")
    assert victim.unharmed()


@ROOT
def test_root_changes_the_owner_of_what_it_made_alone(job, output, victim):
    """A hard link is a regular file: it must not become the folder's owner's, nor be written."""
    (output / ".consort").mkdir(parents=True)
    for path in (output, output / ".consort"):
        os.chown(path, 1234, 2345)
    os.link(victim.file, output / ".consort" / "lock")
    assert harness.consort("extract", job).returncode == 0
    assert victim.unharmed(links=2)
    made = [output / "manifest.jsonl", *(output / ".consort").rglob("*")]
    owners = {path: path.lstat().st_uid for path in made if path.name != "lock" and "contexts" not in path.parts}
    assert set(owners.values()) == {1234}, owners


@ROOT
def test_a_folder_of_another_is_used_as_before(job, output):
    output.mkdir()
    os.chown(output, 1234, 2345)
    for _ in range(2):
        assert harness.consort("extract", job).returncode == 0
    for name in ("lock", "records", "contexts", "scratch", "runs"):
        assert (output / ".consort" / name).lstat().st_uid == 1234


def test_names_with_escape_sequences_are_shown_as_text(job, output):
    (output / ".consort" / "records").mkdir(parents=True)
    (output / ".consort" / "records" / "\x1b[2Jx").symlink_to("nowhere")
    done = harness.consort("extract", job)
    assert done.returncode == 4 and "\x1b" not in done.stderr and "\\x1b[2Jx is a link" in done.stderr


def test_a_link_to_the_output_folder_itself_is_the_users_own(job, output, tmp_path):
    (tmp_path / "disk").mkdir()
    output.symlink_to(tmp_path / "disk")
    assert harness.consort("extract", job).returncode == 0
    assert len(harness.manifest(output)) == 2


USER = """
import importlib, os, sys
for name in "cli.verbs running.placement planning.survey running.run running.weights job.synthetic".split():
    importlib.import_module("orchestrator." + name)
from orchestrator.__main__ import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(2345)
    os.setuid(1234)  # here, as a plain user may not reach this interpreter and its modules
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["absolute", "relative", "fifo"])
def test_a_plain_users_own_things_are_not_reached_either(kind):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        output = folder / "out"
        harness.write_wavs(folder / "audio", 1)
        job, victim = harness.write_job(output, folder / "audio", TONE), Victim(folder / "victim")
        victim.plant(output / ".consort" / "scratch", kind)
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, 1234, 2345, follow_symlinks=False)
        before = victim.listing()
        command = [harness.COMMAND[0], "-c", USER, "extract", str(job)]
        done = subprocess.run(command, cwd=harness.REPOSITORY, capture_output=True, text=True, timeout=60)
        refused(done, ".consort/scratch")
        assert victim.listing() == before
