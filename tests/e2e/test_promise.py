"""What counts as done is there, and is what its record says: whatever clocks say, files are called, or deaths leave."""

import os
import shutil
import sys

import harness
import numpy as np
import pytest

DAY = 86400
SHIFTED = """
import datetime, os, sys, time
shift = float(sys.argv.pop(1))
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=shift)
datetime.datetime = Shifted
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = (lambda: now() + shift), (lambda: now_ns() + int(shift * 1e9))
from orchestrator.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def at_day(monkeypatch):
    """Return a function after which every command has its clock that many days ahead, or behind."""
    return lambda days: monkeypatch.setattr(harness, "COMMAND", [sys.executable, "-c", SHIFTED, str(days * DAY)])


def age(output, days):
    """Give all files of `.consort` the times of another day, as a clock would have."""
    for path in (output / ".consort").rglob("*"):
        then = path.stat().st_mtime_ns + days * DAY * 10**9
        os.utime(path, ns=(then, then))


def tone(gain, pause=0.0):
    return {**harness.TONE, "params": {"gain": gain, "pause": pause}, "pooling": "max"}


def assert_gain(output, gain, count):
    """Hold every array against the peak of its audio, and its record."""
    done = harness.consort("verify", output)
    assert done.returncode == 0, done.stdout
    records = harness.manifest(output)
    contexts = {
        harness.read(output / ".consort" / "contexts" / f"{r['context']}.json")["params"]["gain"] for r in records
    }
    assert contexts == {gain} and len(records) == count
    levels = [float(np.load(output / record["path"])[0]) / gain for record in records]
    assert all(level == pytest.approx(harness.GOOD / 2**0.5, abs=0.02) for level in levels), levels


def kill_in_the_middle(start, job, output, least):
    """Kill the command and its workers once some arrays of this run are recorded; return how many are."""
    records = output / ".consort" / "records"
    before = set(records.glob("*")) if records.is_dir() else set()

    def wrote():
        texts = [path.read_text("ascii") for path in set(records.glob("*.jsonl")) - before]
        return sum(text.count('"kind":"wrote"') for text in texts)

    started = start("extract", job)
    harness.until(lambda: wrote() >= least)
    started.kill_tree()
    return wrote()


def test_clocks_that_jump_between_runs_change_nothing(audio, output, start, at_day):
    harness.write_wavs(audio, 8)
    at_day(+400)
    kill_in_the_middle(start, harness.write_job(output, audio, tone(1.0, pause=0.3), workers=1), output, 2)
    age(output, +400)
    at_day(-400)  # the next run's clock is set back, and the arrays of the first are stale
    job = harness.write_job(output, audio, tone(2.0, pause=0.3), workers=1)
    done = kill_in_the_middle(start, job, output, 2)
    age(output, -800)
    at_day(0)
    planned = harness.consort("plan", job)
    assert f"{8 - done} of 8 items to do" in planned.stdout, planned.stdout  # what the run did whose clock was behind
    last = harness.consort("extract", job)
    assert last.returncode == 0, last.stdout + last.stderr
    assert_gain(output, 2.0, 8)
    first, second, third = (run.name for run in harness.runs(output))
    assert first < second < third
    assert harness.status(output)["models"]["tone"]["done"] == 8  # the job of the last run, not of the latest clock


@pytest.mark.parametrize("behind", [True, False])
def test_what_two_runs_claim_is_believed_by_its_hash(audio, output, behind):
    harness.write_wavs(audio, 2)
    (job, other) = (harness.write_job(output.with_name(f"out{n}"), audio, tone(n)) for n in (1, 2))
    for one in (job, other):
        assert harness.consort("extract", one).returncode == 0
    output, second = output.with_name("out1"), output.with_name("out2")
    lines = [
        os.fsencode(f'{{"kind":"wrote","record":{line}}}\n')
        for line in (second / "manifest.jsonl").read_text().splitlines()
    ]
    records = output / ".consort" / "records"
    names = ["20200101-000000-000-aaaa-x-0.1.jsonl", "20990101-000000-000-bbbb-x-0.1.jsonl"]
    own = [
        os.fsencode(f'{{"kind":"wrote","record":{line}}}\n')
        for line in (output / "manifest.jsonl").read_text().splitlines()
    ]
    for name, told in zip(names if behind else reversed(names), (lines, own)):
        (records / name).write_bytes(b"".join(told))
    (output / "manifest.jsonl").unlink()
    done = harness.consort("plan", job)
    assert "0 of 2 items to do" in done.stdout, done.stdout  # the files are those of the job, whoever spoke last
    shutil.copy(second / "tone" / "good_00.npy", output / "tone" / "good_00.npy")
    assert "1 of 2 items to do" in harness.consort("plan", job).stdout
    assert harness.consort("extract", job).returncode == 0
    assert_gain(output, 1, 2)


def test_an_array_that_a_worker_wrote_before_it_could_say_so_is_not_that_of_the_old_record(audio, output):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, tone(1.0))
    assert harness.consort("extract", job).returncode == 0
    other = np.load(output / "tone" / "good_00.npy") * 2
    np.save(output / "tone" / "good_00.npy", other)  # of the same size
    opened = (
        '{"item":"good_00.wav","kind":"opened","model":"tone"}\n{"item":"good_01.wav","kind":"opened","model":"tone"}\n'
    )
    (output / ".consort" / "records" / "20990101-000000-000-aaaa-x-0.1.jsonl").write_text(opened)
    assert "1 of 2 items to do" in harness.consort("plan", job).stdout
    assert harness.consort("extract", job).returncode == 0
    assert_gain(output, 1.0, 2)


def test_renamed_and_moved_files_are_copied_and_not_computed(audio, output):
    harness.write_wavs(audio, 4)
    model = {**harness.TONE, "outputs": ["level", "peak"]}
    job = harness.write_job(output, audio, model)
    assert harness.consort("extract", job).returncode == 0
    before = {r["item"]: r for r in harness.manifest(output) if r["output"] == "peak"}
    (audio / "good_00.wav").rename(audio / "new name.wav")
    (audio / "deep").mkdir()
    shutil.copy(audio / "good_01.wav", audio / "deep" / "other.wav")  # of another time
    (audio / "good_02.wav").rename(audio / "good_00.wav")  # another file by a known name: its old array is replaced
    planned = harness.consort("plan", job)
    assert "0 of 5 items to do" in planned.stdout and "6 arrays of renamed, moved or copied files" in planned.stdout
    assert harness.status(job)["models"]["tone"]["pending"] == 3
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2, 3 reused" in done.stdout and harness.launched(output) == []
    after = {(r["item"], r["output"]): r for r in harness.manifest(output)}
    for new, old in (
        ("new name.wav", "good_00.wav"),
        ("deep/other.wav", "good_01.wav"),
        ("good_00.wav", "good_02.wav"),
    ):
        changed = {"item": new, "path": after[new, "peak"]["path"]}
        assert after[new, "peak"] == {**before[old], **changed}
    assert harness.consort("verify", output).returncode == 0
    assert "0 of 5 items to do" in (again := harness.consort("extract", job)).stdout + again.stderr
    assert "reused" not in again.stdout
    assert harness.read(harness.runs(output)[1] / "report.json")["models"]["tone"]["reused"] == 3


def test_files_that_exchange_their_names_exchange_their_arrays(audio, output):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, tone(1.0))
    assert harness.consort("extract", job).returncode == 0
    before = [np.load(output / "tone" / f"good_0{n}.npy") for n in (0, 1)]
    (audio / "good_00.wav").rename(audio / "x")
    (audio / "good_01.wav").rename(audio / "good_00.wav")
    (audio / "x").rename(audio / "good_01.wav")
    done = harness.consort("extract", job)
    assert done.returncode == 0 and "0, 2 reused" in done.stdout and harness.launched(output) == []
    after = [np.load(output / "tone" / f"good_0{n}.npy") for n in (1, 0)]
    assert [a.tobytes() for a in after] == [b.tobytes() for b in before] and len({a.tobytes() for a in after}) == 2
    assert harness.consort("verify", output).returncode == 0 and harness.leftovers(output) == []


def test_files_of_one_size_and_time_that_exchange_their_names_are_seen(audio, output):
    for name, peak in (("dog.wav", 0.2), ("cat.wav", 0.8)):
        os.utime(harness.write_wav(audio / name, peak), ns=(10**18, 10**18))
    job = harness.write_job(output, audio, tone(1.0), resume="exists")  # which copies nothing
    assert harness.consort("extract", job, "--resume", "key").returncode == 0
    for old, new in (("dog.wav", "x"), ("cat.wav", "dog.wav"), ("x", "cat.wav")):
        (audio / old).rename(audio / new)
    assert "0 of 2 items to do" in harness.consort("extract", job).stderr  # an array in its place is all that it asks
    done = harness.consort("extract", job, "--resume", "key")
    assert done.returncode == 0 and "0, 2 reused" in done.stdout, done.stdout
    levels = [np.load(output / "tone" / f"{name}.npy")[0] for name in ("dog", "cat")]
    assert levels == pytest.approx([0.8 / 2**0.5, 0.2 / 2**0.5], abs=0.02)


def test_items_of_earlier_runs_are_named(audio, output):
    harness.write_wavs(audio, 3)
    job = harness.write_job(output, audio, tone(1.0))
    assert "items of earlier runs" not in harness.consort("extract", job).stdout
    (audio / "good_00.wav").rename(audio / "moved.wav")
    done = harness.consort("extract", job)
    assert "1 items of earlier runs are not in this job; `consort clean" in done.stdout, done.stdout
    assert harness.consort("clean", output, "--orphaned", "--yes").returncode == 0
    assert "items of earlier runs" not in harness.consort("extract", job).stdout


def test_an_array_of_another_size_is_none_for_skip_existing(audio, output):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, tone(1.0))
    assert harness.consort("extract", job).returncode == 0
    before = harness.fingerprint(output)
    (output / "tone" / "good_01.npy").write_text("garbage")
    done = harness.consort("extract", job, "--skip_existing")
    assert done.returncode == 0 and "1 of 2 items to do" in done.stderr and harness.fingerprint(output) == before


def test_what_a_manifest_gives_away_stays_its_owners(audio, output):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, tone(1.0))
    assert harness.consort("extract", job).returncode == 0
    (output / "thesis.npy").write_text("mine")
    text = (output / "manifest.jsonl").read_text("ascii")
    (output / "manifest.jsonl").write_text(text.replace("tone/good_00.npy", "thesis.npy"), "ascii")
    assert harness.consort("extract", job).returncode == 0
    assert (output / "thesis.npy").read_text() == "mine"
    (output / "manifest.jsonl").write_text(text.replace("tone/good_00.npy", "tone/good_01.npy"), "ascii")
    assert harness.consort("extract", job).returncode == 0  # a name that two claim is nobody's
    assert harness.consort("verify", output).returncode == 0
    assert "0 of 2 items to do" in harness.consort("extract", job).stderr


def test_a_damaged_array_is_not_copied(audio, output):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, tone(1.0))
    assert harness.consort("extract", job).returncode == 0
    np.save(output / "tone" / "good_00.npy", np.load(output / "tone" / "good_00.npy") * 2)
    (audio / "good_00.wav").rename(audio / "renamed.wav")
    done = harness.consort("extract", job)
    assert done.returncode == 0 and "reused" not in done.stdout and len(harness.launched(output)) == 1
    assert np.load(output / "tone" / "renamed.npy")[0] == pytest.approx(harness.GOOD / 2**0.5, abs=0.02)


@pytest.mark.parametrize("resume", ["key", "strict", "exists"])
def test_arrays_that_were_changed_behind_their_records_are_found_and_renewed(audio, output, resume):
    harness.write_wavs(audio, 3)
    job = harness.write_job(output, audio, tone(1.0), resume=resume)
    assert harness.consort("extract", job).returncode == 0
    for name in ("good_00", "good_02"):
        np.save(output / "tone" / f"{name}.npy", np.load(output / "tone" / f"{name}.npy") * 2)
    planned, done = harness.consort("plan", job), harness.consort("extract", job)
    words = "arrays that were looked at are not what was written; 2 of all 3 are computed again"
    if resume == "exists":  # a file in its place is all that this asks for
        assert words not in planned.stdout + done.stderr and "0 of 3 items to do" in planned.stdout
        return
    assert words in planned.stdout and "2 of 3 items to do" in planned.stdout
    assert done.returncode == 0 and words in done.stdout + done.stderr
    assert_gain(output, 1.0, 3)
    assert "looked at" not in harness.consort("plan", job).stdout
