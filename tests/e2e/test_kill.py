"""Deaths of every kind: what a run leaves behind, and that the next one ends where no death ever was."""

import json
import os
import random
import signal
import time

import harness
import pytest
from harness import BAD, TONE, alive, fingerprint, leftovers, naughty, until


@pytest.fixture
def job(audio, output):
    """Return a job of forty short files, which takes some seconds in several shards."""
    harness.write_wavs(audio, 40)
    return harness.write_job(output, audio, {**TONE, "params": {"pause": 0.15}}, workers=2)


def elsewhere(job, tmp_path, *flags):
    """Return what the job writes when nothing disturbs it."""
    calm = tmp_path / "calm"
    done = harness.consort("extract", job, "--output", calm, *flags)
    assert done.returncode == 0, done.stderr
    assert leftovers(calm) == []
    return fingerprint(calm)


def arrays(output):
    return {path: path.stat().st_mtime_ns for path in output.rglob("*.npy")}


def recorded(output):
    """Return the arrays that a run under way, or killed, has accounted for."""
    lines = [
        line for path in (output / ".consort/records").glob("*.jsonl") for line in path.read_text().split("\n")[:-1]
    ]
    wrote = [event["record"]["path"] for event in map(json.loads, lines) if event["kind"] == "wrote"]
    return {output / path: (output / path).stat().st_mtime_ns for path in wrote}


def wait_for_a_run(start, job, output):
    """Start the command, and return it when its run has a folder."""
    folders = output / ".consort" / "runs"
    before, running = len([*folders.glob("*")]), start("extract", job)
    until(lambda: len([*folders.glob("*")]) > before or running.process.poll() is not None)
    return running


def test_ten_kills_of_the_whole_tree_at_any_moment_change_nothing(job, output, tmp_path, start):
    dice = random.Random(2)
    for number in range(10):  # some while they still read the job
        running = wait_for_a_run(start, job, output) if number % 4 else start("extract", job)
        time.sleep(dice.uniform(0.0, 1.2))
        running.kill_tree()
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert fingerprint(output) == elsewhere(job, tmp_path)
    assert leftovers(output) == []
    assert len(harness.runs(output)) > 5, "most runs must have got far enough to be disturbed"


def test_a_kill_of_real_models_changes_nothing(output, tmp_path, start):
    models = [{"name": "crepe", "params": {"model_capacity": "tiny"}}, "musicnn"]
    job = harness.write_job(output, harness.REPOSITORY / "tests/audio/quickstart", *models)
    running = start("extract", job)
    until(lambda: len(recorded(output)) >= 3 or running.process.poll() is not None)
    assert running.process.poll() is None, "the kill must come before the end"
    running.kill_tree()
    kept = recorded(output)
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert fingerprint(output) == elsewhere(job, tmp_path)
    assert leftovers(output) == []
    assert {path: arrays(output)[path] for path in kept} == kept, "what was recorded is not done again"


def test_workers_end_by_themselves_when_the_command_dies(audio, output, start):
    harness.write_wavs(audio, 10)
    job = harness.write_job(output, audio, {**TONE, "params": {"pause": 0.6}})
    running = start("extract", job)
    until(lambda: recorded(output))
    workers = running.kill()
    assert workers
    until(lambda: not any(map(alive, workers)))
    finished = recorded(output)
    assert sorted(finished) == sorted(arrays(output)), "all that was finished is accounted for"
    assert 0 < len(finished) < 10, "they ended before their work did"
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert {path: arrays(output)[path] for path in finished} == finished, "what was finished is not done again"
    assert len(harness.written(output)) == 10
    assert leftovers(output) == []


def test_a_worker_that_hangs_ends_too_when_the_command_dies(audio, output, start):
    harness.write_wav(audio / "a.wav", BAD)
    job = harness.write_job(output, audio, naughty("hang"))
    running = start("extract", job)
    until(lambda: any('"opened"' in path.read_text() for path in (output / ".consort/records").glob("*-0.1.jsonl")))
    (worker,) = running.kill()
    done = harness.consort("extract", job, "--set", "naughty.params.mode=none")
    assert done.returncode == 0, done.stderr
    assert not alive(worker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_is_finished(number, job, output, start, tmp_path):
    running = start("extract", job)
    until(lambda: recorded(output))
    workers = running.children()
    running.process.send_signal(number)
    assert running.wait(20) == 130
    assert not any(map(alive, workers))
    assert "kept" in running.text and "Traceback" not in running.text
    assert leftovers(output) == []
    finished = arrays(output)
    assert 0 < len(harness.written(output)) == len(finished) < 40
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert {path: arrays(output)[path] for path in finished} == finished
    assert fingerprint(output) == elsewhere(job, tmp_path)


def test_a_second_interrupt_does_not_wait_for_a_model(audio, output, start):
    harness.write_wav(audio / "a.wav", BAD)
    running = start("extract", harness.write_job(output, audio, naughty("hang")))
    workers = until(running.children)
    until(lambda: any('"opened"' in path.read_text() for path in (output / ".consort/records").glob("*-0.1.jsonl")))
    for _ in range(2):
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert running.wait(30) == 130
    assert not any(map(alive, workers))


def test_a_second_run_on_one_output_is_refused_in_one_line(job, output, start):
    running = start("extract", job)
    until(lambda: recorded(output))
    done = harness.consort("extract", job)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1 and "another run" in done.stderr
    assert running.wait() == 0
    assert len(harness.written(output)) == 40


def test_status_of_a_run_that_is_going_disturbs_nothing(job, output, start):
    running = start("extract", job)
    until(lambda: (output / ".consort/runs").is_dir() and list((output / ".consort/runs").glob("*/plan.json")))
    seen = []
    while running.process.poll() is None:
        seen.append(harness.status(output))
    assert running.wait() == 0, running.text
    counts = [one["models"]["tone"]["done"] for one in seen]
    going = [count for one, count in zip(seen, counts) if one["running"]]
    assert any(0 < count < 40 for count in going)
    assert counts == sorted(counts)
    last = harness.status(job)
    assert not last["running"]
    assert last["models"]["tone"] == {
        "done": 40,
        "pending": 0,
        "failed": {},
        "stale": 0,
        "orphaned": 0,
        "waiting": 0,
        "devices": ["cpu"],
    }
    assert os.path.samefile(last["output"], output)
