"""Whoever reads what a run prints may go away: the run goes on, and ends with its own code."""

import os
import subprocess

import harness


def run(job, stream):
    """Run a job whose `stream` nobody reads, and return the exit code."""
    ours, theirs = os.pipe()
    os.close(ours)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: theirs}
    command = [*harness.COMMAND, "extract", str(job), "--verbose"]
    done = subprocess.run(command, cwd=harness.REPOSITORY, stdin=subprocess.DEVNULL, timeout=300, **streams)
    os.close(theirs)
    return done.returncode


def test_a_run_that_nobody_listens_to_is_done(audio, output):
    harness.write_wavs(audio, 3)
    assert run(harness.write_job(output, audio, harness.TONE), "stderr") == 0
    assert len(harness.manifest(output)) == 3


def test_a_report_that_nobody_reads_keeps_its_code(audio, output):
    harness.write_wavs(audio, 3)
    (audio / "bad.wav").write_bytes(b"no sound")
    assert run(harness.write_job(output, audio, harness.TONE), "stdout") == 1
    assert len(harness.manifest(output)) == 3
