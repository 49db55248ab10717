"""The ledger: what earlier runs wrote, whatever cut them short."""

import dataclasses
import fcntl
import hashlib
import json
import os
import threading
import time

import pytest

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import OutputDir
from worker import protocol
from worker.protocol import Event, Facts, Failure


@pytest.fixture
def output(tmp_path):
    folder = OutputDir(tmp_path / "out")
    folder.create()
    return folder


@pytest.fixture
def attempt(output):
    """Return a writer of event files, each newer than the one before."""
    count = iter(range(1, 100))

    def write(*events, name=None, tail=""):
        number = next(count)
        path = output.records / f"{name or f'run-env-{number}.1'}.jsonl"
        path.write_text("".join(map(protocol.encode, events)) + tail, "ascii")
        os.utime(path, ns=(number * 10**9, number * 10**9))
        return path

    return write


def wrote(record, **changes):
    return Event("wrote", record=record(**changes))


def failed(item="a.wav", model="crepe", kind="decode"):
    return Event("failed", failure=Failure(item, model, kind, "no sound", "k"))


def decoded(item="a.wav", sha="1" * 64):
    return Event("decoded", item=item, facts=Facts(sha, 5, 7))


def everything(output):
    return {str(p.relative_to(output.root)): p.read_bytes() for p in output.root.rglob("*") if p.is_file()}


def test_records_are_folded_sorted_and_their_files_removed(output, attempt, record):
    attempt(decoded(), wrote(record, item="b.wav"), wrote(record, output="activation"), wrote(record))
    attempt(failed("c.wav"), decoded("c.wav", ""), wrote(record, model="another"))
    ledgers.fold(output)
    lines = [json.loads(line) for line in output.manifest.read_text().splitlines()]
    assert [(r["item"], r["model"], r["output"]) for r in lines] == [
        ("a.wav", "another", "pitch"),
        ("a.wav", "crepe", "activation"),
        ("a.wav", "crepe", "pitch"),
        ("b.wav", "crepe", "pitch"),
    ]
    assert [json.loads(line)["item"] for line in output.failures.read_text().splitlines()] == ["c.wav"]
    assert [json.loads(line) for line in output.sources.read_text().splitlines()] == [
        {"ctime_ns": 0, "item": "a.wav", "mtime_ns": 7, "sha256": "1" * 64, "size": 5}
    ]
    assert list(output.records.iterdir()) == []


def test_the_manifest_does_not_depend_on_who_wrote_what(output, attempt, record):
    attempt(wrote(record), wrote(record, item="b.wav"))
    ledgers.fold(output)
    first = output.manifest.read_bytes()
    output.manifest.unlink()
    attempt(wrote(record, item="b.wav"))
    attempt(wrote(record))
    ledgers.fold(output)
    assert output.manifest.read_bytes() == first


def test_folding_twice_changes_nothing(output, attempt, record):
    events = [decoded(), wrote(record), failed("b.wav")]
    attempt(*events)
    ledgers.fold(output)
    first = everything(output)
    ledgers.fold(output)
    assert everything(output) == first
    attempt(*events)
    ledgers.fold(output)
    assert everything(output) == first


def test_reading_sees_what_is_not_folded_yet(output, attempt, record):
    attempt(wrote(record))
    ledgers.fold(output)
    attempt(wrote(record, item="b.wav"), failed("c.wav"))
    before = everything(output)
    ledger = ledgers.read(output)
    assert {key[0] for key in ledger.records} == {"a.wav", "b.wav"}
    assert set(ledger.failures) == {("c.wav", "crepe")}
    assert everything(output) == before


def test_reading_while_another_process_folds_loses_nothing(output, attempt, record, monkeypatch):
    attempt(wrote(record))
    expected = ledgers.read(output)
    real = ledgers._entries

    def folding(path, build, *more):
        if path == output.failures:  # the manifest has been read
            with monkeypatch.context() as patch:
                patch.setattr(ledgers, "_entries", real)
                ledgers.fold(output)
        return real(path, build, *more)

    monkeypatch.setattr(ledgers, "_entries", folding)
    assert ledgers.read(output) == expected


def test_the_newest_word_counts(output, attempt, record):
    attempt(failed(), failed("b.wav"))
    attempt(wrote(record, key="old"), failed("b.wav", kind="model"))
    attempt(wrote(record, key="new"))
    ledger = ledgers.fold(output)
    assert [r.key for r in ledger.records.values()] == ["new"]
    assert {f.item: f.kind for f in ledger.failures.values()} == {"b.wav": "model"}


@pytest.mark.parametrize("tail", ['{"kind":"wrote","rec', "{", "\x00\x00\x00", '"wrote"\n', '{"kind":"wr', "\xff"])
def test_a_line_cut_short_is_ignored(output, attempt, record, tail):
    path = attempt(wrote(record))
    path.write_bytes(path.read_bytes() + tail.encode("latin-1"))
    assert len(ledgers.fold(output).records) == 1


@pytest.mark.parametrize("cut", range(0, 900, 50))
def test_a_file_torn_anywhere_gives_its_whole_lines(output, attempt, record, cut):
    whole = attempt(wrote(record), wrote(record, item="b.wav"))
    data = whole.read_bytes()
    whole.write_bytes(data[:cut])
    assert len(ledgers.read(output).records) == data[:cut].count(b"\n")


@pytest.mark.parametrize("moment", range(1, 8))
def test_a_death_in_the_middle_of_folding_loses_nothing(output, attempt, record, monkeypatch, moment):
    attempt(failed("b.wav"), wrote(record, key="old"), decoded())
    attempt(wrote(record, item="b.wav"), wrote(record), failed("c.wav"))
    expected = ledgers.read(output)
    steps = iter(range(1, 100))

    def dying(real):
        def step(*arguments, **options):
            if next(steps) == moment:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(ledgers.pathlib.Path, "unlink", dying(ledgers.pathlib.Path.unlink))
        try:
            ledgers.fold(output)
        except KeyboardInterrupt:
            pass
    assert ledgers.read(output) == expected
    assert ledgers.fold(output) == expected
    assert list(output.records.iterdir()) == []
    assert ledgers.read(output) == expected


@pytest.mark.parametrize("name", ["manifest", "failures", "sources"])
@pytest.mark.parametrize(
    "damage", [b"{\n", b"[]\n", b"3\n", b'{"item":"a.wav"}\n', b'{"nonsense":1}\n', b"\xff\n", b"null\n"]
)
def test_a_damaged_file_is_one_clear_error(output, attempt, record, name, damage):
    attempt(wrote(record), failed("b.wav"), decoded())
    ledgers.fold(output)
    path = getattr(output, name)
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(RunFailed, match=rf"{path.name} is damaged \(.*; restore it or remove it and run again"):
        ledgers.read(output)


@pytest.mark.parametrize("name", ["manifest", "failures", "sources"])
@pytest.mark.parametrize("cut", [b"{", b'{"item":"z.wav","mod'])
def test_a_last_line_that_was_cut_leaves_the_others(output, attempt, record, name, cut):
    attempt(wrote(record), failed("b.wav"), decoded())
    known = ledgers.fold(output)
    path = getattr(output, name)
    path.write_bytes(path.read_bytes() + cut)
    assert ledgers.read(output) == known
    path.write_bytes(b"{\n" + path.read_bytes())
    with pytest.raises(RunFailed, match="is damaged"):
        ledgers.read(output)


def test_an_unwritable_manifest_keeps_the_records(output, attempt, record):
    path = attempt(wrote(record))
    output.manifest.mkdir()
    (output.manifest / "x").touch()
    with pytest.raises(RunFailed, match=r"manifest\.jsonl"):
        ledgers.fold(output)
    assert path.exists()


def leftovers(output):
    host = [".manifest.jsonl.77.part"]
    host += [f".consort/runs/r/{name}.part" for name in (".plan.json.77", ".job.yaml.0123456789abcdef")]
    for path in ("crepe/.run-env-0.1-3.part", *host):
        (output.root / path).parent.mkdir(parents=True, exist_ok=True)
        (output.root / path).write_bytes(b"half")
    (output.contexts / "abc.json.run-env-0.1.part").write_bytes(b"half")


def partials(output):
    return sorted(str(p.relative_to(output.root)) for p in output.root.rglob("*.part"))


def test_a_sweep_removes_temporary_files_and_nothing_else(output, attempt, record):
    attempt(wrote(record))
    leftovers(output)
    kept = ["crepe/a.npy", "crepe/my.part", "crepe/.film.part", "crepe/.hidden", "crepe/deep/.part.npy", "notes.txt"]
    for name in kept:
        (output.root / name).parent.mkdir(parents=True, exist_ok=True)
        (output.root / name).write_bytes(b"mine")
    (output.scratch / "run-env-0.1" / "deep").mkdir(parents=True)
    assert ledgers.sweep(output) == 4
    assert partials(output) == ["crepe/.film.part", "crepe/my.part"]
    assert all((output.root / name).read_bytes() == b"mine" for name in kept)
    assert list(output.scratch.iterdir()) == []
    assert len(ledgers.attempts(output)) == 1


def test_a_sweep_without_attempts_still_finds_what_the_host_left(output):
    leftovers(output)
    ledgers.sweep(output)
    assert partials(output) == ["crepe/.run-env-0.1-3.part"]  # where only an attempt could have left it


def test_a_sweep_waits_for_an_attempt_that_is_still_ending(output, attempt, record):
    path = attempt(wrote(record))
    leftovers(output)
    with open(path, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(RunFailed, match="a worker of an earlier run is still writing"):
            ledgers.sweep(output, patience=0.2)
        assert len(partials(output)) == 5
        timer = threading.Timer(0.3, lambda: fcntl.flock(f, fcntl.LOCK_UN))
        began = time.monotonic()
        timer.start()
        ledgers.sweep(output, patience=10)
        assert time.monotonic() - began > 0.2
        timer.join()
    assert partials(output) == []


def test_asking_for_a_lock_makes_no_file(output):
    assert not ledgers.locked(output.records / "folded.jsonl")
    assert list(output.records.iterdir()) == []


def test_a_channel_is_locked_as_long_as_its_writer_lives(output):
    path = output.records / "x.jsonl"
    channel = protocol.Channel(str(path))
    assert ledgers.locked(path)
    channel.close()
    assert not ledgers.locked(path)


def windows(record, output, count, key="k", folder="latents"):
    """Return the events of one item cut into `count` windows, whose files are there."""
    events = []
    for number in range(count):
        path = f"{folder}/a_frag{number}.txt"
        (output.root / folder).mkdir(exist_ok=True)
        (output.root / path).write_text(key)
        changes = {"model": "latents", "output": "latents", "path": path, "window": number, "windows": count}
        changes["sha256"] = hashlib.sha256(key.encode()).hexdigest()
        events.append(Event("wrote", record=record(key=key, **changes)))
    return events


def test_windows_of_an_item_are_records_of_their_own(output, attempt, record):
    attempt(*windows(record, output, 3))
    ledger = ledgers.fold(output)
    assert [r.window for r in ledger.of("a.wav", "latents", "latents")] == [0, 1, 2]
    assert ledgers.read(output).of("a.wav", "latents", "latents") == ledger.of("a.wav", "latents", "latents")
    assert ledger.of("a.wav", "latents", "codes") == []


def test_an_item_with_a_window_missing_is_not_there(output, attempt, record):
    attempt(*windows(record, output, 3)[:2])
    assert ledgers.fold(output).of("a.wav", "latents", "latents") == []


def test_windows_that_an_item_no_longer_has_are_removed_with_their_files(output, attempt, record):
    attempt(*windows(record, output, 3))
    ledgers.fold(output)
    (output.root / "latents" / "mine.txt").write_text("a user's own")
    attempt(*windows(record, output, 2, key="new"))
    ledger = ledgers.fold(output)
    assert [r.key for r in ledger.of("a.wav", "latents", "latents")] == ["new", "new"]
    assert sorted(p.name for p in (output.root / "latents").iterdir()) == ["a_frag0.txt", "a_frag1.txt", "mine.txt"]


def test_what_no_record_fits_is_not_removed(output, attempt, record):
    attempt(*windows(record, output, 2))
    ledgers.fold(output)
    (output.root / "latents" / "a_frag1.txt").write_text("a user's own")
    attempt(*windows(record, output, 1, key="new"))
    ledgers.fold(output)
    assert (output.root / "latents" / "a_frag1.txt").read_text() == "a user's own"


def test_a_window_outside_the_output_folder_is_not_removed(output, attempt, record):
    outside = output.root.parent / "outside.txt"
    outside.write_text("keep")
    events = windows(record, output, 2)
    lost = dataclasses.replace(events[1].record, path="../outside.txt")
    attempt(events[0], dataclasses.replace(events[1], record=lost))
    ledgers.fold(output)
    attempt(*windows(record, output, 1, key="new"))
    ledgers.fold(output)
    assert outside.read_text() == "keep"


def test_an_array_of_another_layout_replaces_the_windows_and_their_files(output, attempt, record):
    attempt(*windows(record, output, 3))
    ledgers.fold(output)
    (output.root / "latents" / "a.txt").write_text("whole")
    attempt(wrote(record, model="latents", output="latents", path="latents/a.txt"))
    ledger = ledgers.fold(output)
    assert [r.path for r in ledger.of("a.wav", "latents", "latents")] == ["latents/a.txt"]
    assert [p.name for p in (output.root / "latents").iterdir()] == ["a.txt"]


def test_an_array_whose_file_became_a_window_of_another_item_is_to_be_made_again(output, attempt, record):
    attempt(wrote(record, item="a_frag0.wav", model="latents", output="latents", path="latents/a_frag0.txt"))
    ledgers.fold(output)
    attempt(*windows(record, output, 1))
    ledger = ledgers.fold(output)
    assert ledger.of("a_frag0.wav", "latents", "latents") == []
    assert [r.window for r in ledger.of("a.wav", "latents", "latents")] == [0]


def test_a_death_before_the_manifest_is_written_forgets_no_file_to_remove(output, attempt, record, monkeypatch):
    attempt(*windows(record, output, 3))
    ledgers.fold(output)
    attempt(*windows(record, output, 1, key="new"))

    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            ledgers.fold(output)
    ledgers.fold(output)
    assert [p.name for p in (output.root / "latents").iterdir()] == ["a_frag0.txt"]


def test_a_sweep_leaves_the_output_folders_of_other_jobs_alone(output, attempt, record):
    attempt(wrote(record))
    inner = OutputDir(output.root / "embeddings")
    inner.create()
    (inner.root / "crepe").mkdir()
    (output.root / "crepe").mkdir()
    for root in (inner.root, output.root):
        (root / "crepe" / ".x.1-2.part").write_text("half")
    assert ledgers.sweep(output) == 1
    assert (inner.root / "crepe" / ".x.1-2.part").exists()


@pytest.mark.parametrize("name", [".t.csv.123.part", ".t_summary.txt.123.part"])
def test_what_a_table_left_half_written_is_swept(output, name):
    (output.root / name).write_text("half")
    assert ledgers.sweep(output) == 1
