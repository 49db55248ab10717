"""The engine or an image is away in the middle of a run: what passes is waited for, the rest is one line."""

import time

import harness
import pytest
from engine import containers, docker
from harness import ELSEWHERE, TONE, fingerprint, leftovers, until
from relay import Relay


@pytest.fixture
def relay(tmp_path_factory):
    """Return a way to the engine that the command takes; these tests themselves ask the engine directly."""
    found = Relay(tmp_path_factory.mktemp("r") / "s")
    found.start()
    yield found
    found.stop()


@pytest.fixture
def job(audio, output):
    """Return a job of ten short files, which takes some seconds in several containers."""
    harness.write_wavs(audio, 10)
    return harness.write_job(output, audio, {**TONE, "params": {"pause": 0.5}}, runtime="docker", workers=2)


def test_an_engine_that_is_started_anew_is_named_and_no_item_is_to_blame(job, output, start, relay):
    running = start("extract", job, DOCKER_HOST=relay.address)
    until(lambda: list(output.rglob("*.npy")))
    relay.stop()
    relay.start()
    assert running.wait() == 0, running.text
    assert "EOF" in running.text and "INFO" not in running.text, "the worker's last line is no reason"
    assert containers() == [] and leftovers(output) == []


def test_an_engine_that_comes_back_is_waited_for(job, output, tmp_path, start, relay):
    running = start("extract", job, DOCKER_HOST=relay.address)
    until(lambda: list(output.rglob("*.npy")))
    relay.stop()
    time.sleep(4)
    relay.start()
    assert running.wait() == 0, running.text
    (waits,) = [line for line in running.text.splitlines() if "waits up to 60 s" in line]
    assert f"no Docker engine answers ({relay.address}: no such socket); start it" in waits
    assert "goes on after" in running.text and "gives up" not in running.text
    assert containers() == [] and leftovers(output) == []
    calm = harness.consort("extract", job, "--output", tmp_path / "calm", "--runtime", "venv")
    assert calm.returncode == 0, calm.stderr
    assert fingerprint(output) == fingerprint(tmp_path / "calm")


def test_an_engine_that_stays_away_is_one_line_that_says_how_to_go_on(job, output, start, relay):
    running = start("extract", job, DOCKER_HOST=relay.address)
    until(lambda: list(output.rglob("*.npy")))
    relay.stop()
    assert running.wait(120) == 4, running.text
    (line,) = [line for line in running.text.splitlines() if line.startswith("consort: ")]
    assert line.startswith("consort: no Docker engine answers (") and line.endswith("kept, run again")
    assert not containers("status=running"), "they have ended by themselves"
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr
    assert containers() == [] and leftovers(output) == []


def test_an_image_that_is_removed_is_waited_for_as_well(audio, output, tmp_path, start):
    environment = harness.write_environment(tmp_path / "my_env")
    assert harness.consort("envs", "build", environment, "--runtime", "docker", timeout=600).returncode == 0
    harness.write_wavs(audio, 10)
    model = {**ELSEWHERE, "params": {"pause": 0.5}}
    job = harness.write_job(output, audio, model, environments=["./my_env"], runtime="docker", workers=1)
    try:
        image = docker("image", "inspect", "--format", "{{.Id}}", "consort/my_env:cpu")
        docker("tag", image, "consort-test/kept:1")
        running = start("extract", job)
        (name,) = until(lambda: containers("status=running"))
        docker("image", "rm", "consort/my_env:cpu")
        docker("kill", name)
        time.sleep(3)
        docker("tag", image, "consort/my_env:cpu")
        assert running.wait() == 0, running.text
    finally:
        docker("image", "rm", "consort-test/kept:1")
        harness.consort("envs", "remove", environment, "--runtime", "docker")
    gone = "image consort/my_env:cpu is not there any more; `make images` builds it; waits up to 60 s for it"
    assert running.text.count(gone) == 1
    assert len(harness.written(output)) == 10
