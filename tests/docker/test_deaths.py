"""Deaths around containers: of the command, of one container, of a start that failed half way."""

import harness
import pytest
from engine import containers, docker
from harness import TONE, fingerprint, leftovers, until

from orchestrator.running.runtimes import docker as runtime


@pytest.fixture
def job(audio, output):
    """Return a job of ten short files, which takes some seconds in several containers."""
    harness.write_wavs(audio, 10)
    return harness.write_job(output, audio, {**TONE, "params": {"pause": 0.5}}, runtime="docker", workers=2)


def calm(job, tmp_path):
    """Return what the job writes when nothing disturbs it, in virtual environments."""
    done = harness.consort("extract", job, "--output", tmp_path / "calm", "--runtime", "venv")
    assert done.returncode == 0, done.stderr
    return fingerprint(tmp_path / "calm")


def wrote(output):
    return list(output.rglob("*.npy"))


def test_containers_end_by_themselves_when_the_command_is_killed(job, output, tmp_path, start):
    running = start("extract", job)
    until(lambda: len(wrote(output)) >= 2)
    running.process.kill()  # not the clients that it has started: nobody asks the containers to end
    running.process.wait(10)
    until(lambda: not containers("status=running"), 15)
    assert len(wrote(output)) < 10, "their work would have taken longer"
    left = containers()
    assert left, "the next run has something to sweep"
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert containers() == [] and leftovers(output) == []
    assert fingerprint(output) == calm(job, tmp_path)


def test_a_kill_of_the_whole_tree_leaves_nothing_that_the_next_run_does_not_sweep(job, output, tmp_path, start):
    running = start("extract", job)
    until(lambda: wrote(output))
    running.kill_tree()
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert containers() == [] and leftovers(output) == []
    assert fingerprint(output) == calm(job, tmp_path)


def test_a_container_that_is_killed_is_replaced(job, output, tmp_path, start):
    running = start("extract", job)
    until(lambda: wrote(output))
    docker("kill", containers("status=running")[0])
    assert running.wait() == 0, running.text
    assert "a worker ended (exit code 137); goes on with" in running.text
    assert fingerprint(output) == calm(job, tmp_path)


def test_an_interrupt_keeps_what_is_finished(job, output, tmp_path, start):
    running = start("extract", job)
    until(lambda: wrote(output))
    running.process.send_signal(2)
    assert running.wait() == 130, running.text
    assert containers() == [] and leftovers(output) == []
    kept = {path: path.stat().st_mtime_ns for path in wrote(output)}
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert kept and all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert fingerprint(output) == calm(job, tmp_path)


def test_an_impatient_interrupt_kills_the_containers(audio, output, start):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, {**TONE, "params": {"pause": 60}}, runtime="docker")
    running = start("extract", job)
    until(lambda: containers("status=running"))
    running.process.send_signal(2)
    until(lambda: "stopping" in (running.process.stdout.readline()))
    running.process.send_signal(2)
    assert running.process.wait(20) == 130
    assert containers() == []


def test_a_container_that_was_only_created_is_swept(job, output):
    assert harness.consort("extract", job, "--limit", 1).returncode == 0
    docker("create", "--label", runtime._output_label(output), "consort/legacy-py37:cpu")
    assert len(containers("status=created")) == 1
    assert harness.consort("extract", job, "--limit", 1).returncode == 0
    assert containers() == []


def test_a_hang_in_a_container_is_ended(audio, output):
    harness.write_wav(audio / "bad.wav", harness.BAD)
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, harness.naughty("hang"), runtime="docker", timeout_per_item=3)
    done = harness.consort("extract", job)
    assert done.returncode == 1, done.stderr + done.stdout
    assert harness.failures(output) == {("naughty", "bad.wav"): "timeout"}
    assert len(harness.written(output)) == 2
