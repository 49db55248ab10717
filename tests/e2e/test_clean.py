"""`consort clean RUN` through the command: what it removes is what the next run makes again, byte for byte."""

import fcntl
import json
import os
import subprocess
import sys

import harness
import pytest
from harness import TONE

BOTH = {**TONE, "outputs": ["level", "peak"]}
AGAIN = {**TONE, "name": "again"}


@pytest.fixture
def run(audio, output):
    """Return the job file of a finished run of two models over four items."""
    harness.write_wavs(audio, 4)
    job = harness.write_job(output, audio, BOTH, AGAIN)
    assert harness.consort("extract", job).returncode == 0
    return job


def clean(code, *arguments):
    done = harness.consort("clean", *arguments)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def content(output):
    """Return what a user sees of an output folder."""
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and ".consort" not in path.parts}


def test_a_model_is_removed_and_extracted_again_byte_for_byte(run, output):
    before = content(output)
    said = clean(0, output, "--model", "tone")
    assert "arrays of tone      8" in said and "add --yes" in said and content(output) == before
    clean(0, output, "--model", "tone", "--yes")
    assert {path.relative_to(output).parts[0] for path in content(output)} == {"again", "manifest.jsonl"}
    assert harness.consort("verify", output).returncode == 0
    assert "4 of 4 items to do" in harness.consort("plan", run).stdout
    assert harness.consort("extract", run).returncode == 0
    assert content(output) == before


def test_what_is_stale_or_orphaned_is_what_status_counts(run, audio, output):
    (audio / "good_00.wav").unlink()
    harness.write_wav(audio / "good_01.wav", seconds=0.7)
    stale = json.loads(harness.consort("status", run, "--json").stdout)["models"]
    assert [(stale[name]["stale"], stale[name]["orphaned"]) for name in ("tone", "again")] == [(1, 2), (1, 1)]
    assert "arrays of tone       2" in clean(0, run, "--stale", "--yes")
    assert "arrays of again      1" in clean(0, run, "--orphaned", "--yes")
    after = json.loads(harness.consort("status", run, "--json").stdout)["models"]
    assert [(after[n]["stale"], after[n]["orphaned"], after[n]["done"]) for n in ("tone", "again")] == [(0, 0, 2)] * 2
    assert clean(0, run, "--orphaned", "--yes") == "nothing to remove\n"


def test_two_at_once_are_refused(run, output):
    with open(output / ".consort/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing here" in clean(4, output, "--model", "tone", "--yes")
    assert len(harness.manifest(output)) == 12


KILLED = """
import os, pathlib, sys
from orchestrator.__main__ import main
unlink, left = pathlib.Path.unlink, [int(sys.argv.pop(1))]
def last(path, **how):
    left[0] -= path.suffix == ".npy"
    os.kill(os.getpid(), 9) if left[0] < 0 else unlink(path, **how)
pathlib.Path.unlink = last
main(sys.argv[1:])
"""


@pytest.mark.parametrize("removed", [0, 3])
def test_a_killed_clean_leaves_a_folder_that_goes_on(run, output, removed):
    before = content(output)
    command = [sys.executable, "-c", KILLED, str(removed), "clean", str(output), "--model", "tone", "--yes"]
    assert subprocess.run(command, env=os.environ, cwd=harness.REPOSITORY).returncode == -9
    assert len(content(output)) == len(before) - removed
    if removed:
        clean(0, output, "--model", "tone", "--yes")
        assert len(harness.manifest(output)) == 4
    assert harness.consort("extract", run).returncode == 0
    assert content(output) == before
    assert harness.consort("verify", output).returncode == 0
