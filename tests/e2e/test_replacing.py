"""Arrays of other settings that a run would replace: counted before it happens, and asked where a flag is why."""

import os
import pty
import shutil
import subprocess

import harness
import pytest
import yaml


@pytest.fixture
def written(audio, output):
    """Return the job file of 101 short clips that have been done."""
    harness.write_wavs(audio, 101, seconds=0.1)
    job = harness.write_job(output, audio, harness.TONE)
    assert harness.consort("extract", job).returncode == 0
    return job


OTHER = ("--set", "tone.params.gain=2")


def test_a_flag_that_would_replace_much_is_asked_about_first(written, output):
    before = harness.fingerprint(output)
    planned = harness.consort("plan", written, *OTHER)
    assert planned.returncode == 0, planned.stderr
    assert "flag: tone.params.gain: not said -> 2" in planned.stdout
    assert "replaces arrays of tone: 101 with other settings" in planned.stdout and "--yes" in planned.stdout
    done = harness.consort("extract", written, *OTHER)
    assert done.returncode == 2 and "add --yes" in done.stderr.splitlines()[-1], done.stderr
    assert harness.fingerprint(output) == before and len(harness.runs(output)) == 1
    few = harness.consort("extract", written, *OTHER, "--limit", 3)
    assert few.returncode == 0 and "replaces arrays of tone: 3 with other settings" in few.stderr, few.stderr
    done = harness.consort("extract", written, "--set", "tone.params.gain=3", "--yes")
    assert done.returncode == 0 and "replaces arrays of tone: 101 with other settings" in done.stderr, done.stderr
    assert "0 of 101 items to do" in harness.consort("extract", written, "--set", "tone.params.gain=3").stderr


@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("y", 0)])
def test_a_terminal_is_asked(written, answer, code):
    ours, theirs = pty.openpty()
    command = [*harness.COMMAND, "extract", str(written), *OTHER]
    process = subprocess.Popen(command, cwd=harness.REPOSITORY, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"replace them? [y/N]" not in said:
        said += os.read(ours, 4096)
    os.write(ours, answer.encode() + b"\n")
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:
        pass  # so Linux says that nobody holds the other end any more
    assert process.wait(60) == code, said
    os.close(ours)


def test_a_changed_job_is_said_and_not_asked(written, audio, output):
    job = yaml.safe_load(written.read_text())
    job["models"][0]["params"] = {"gain": 2}
    written.write_text(yaml.safe_dump(job))
    done = harness.consort("extract", written, "--output", output, "--workers", 1)
    assert done.returncode == 0 and "replaces arrays of tone: 101 with other settings" in done.stderr, done.stderr


def test_a_folder_that_a_flag_names_may_hold_what_another_job_wrote(written, audio, output):
    models = [{**harness.TONE, "params": {"gain": 2}}, {**harness.TONE, "name": "second"}]
    other = harness.write_job(output.with_name("other"), audio, *models)
    harness.consort("extract", written, "--models", "tone", "tone")
    job = yaml.safe_load(written.read_text())
    job["models"].append({**harness.TONE, "name": "third"})
    written.write_text(yaml.safe_dump(job))
    assert harness.consort("extract", written).returncode == 0
    done = harness.consort("extract", other, "--output", output)
    assert done.returncode == 2 and "arrays of other settings: 101" in done.stderr, done.stderr


def test_arrays_that_copies_would_replace_are_asked_about_too(written, audio, output):
    other = audio.with_name("other")
    other.mkdir()
    for path in audio.iterdir():
        shutil.copy(path, other / f"other_{path.name}")
    assert harness.consort("extract", written, *OTHER, "--audio", other).returncode == 0
    done = harness.consort("extract", written, *OTHER)
    assert done.returncode == 2 and "arrays of other settings: 101" in done.stderr, done.stderr


def test_an_hour_of_work_is_asked_about_and_other_audio_is_said(audio, output):
    clip = harness.write_wav(audio / "long.wav", seconds=361)
    job = harness.write_job(output, audio, harness.TONE)
    assert harness.consort("extract", job).returncode == 0
    done = harness.consort("extract", job, *OTHER)
    assert done.returncode == 2 and "arrays of other settings: 1, ~1:00:10 of CPU time" in done.stderr
    harness.write_wav(clip, seconds=1, pitch=300)
    done = harness.consort("extract", job)
    assert done.returncode == 0 and "replaces arrays of tone: 1 of other audio" in done.stderr
