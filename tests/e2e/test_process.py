"""The command as a process of its own: how soon it answers, what it imports, and what its caller hands down."""

import os
import subprocess
import sys

import pytest
from harness import REPOSITORY

FRAMEWORKS = ("torch", "tensorflow", "keras", "soundfile", "soxr", "h5py", "requests", "docker", "rich")
SECONDS = 1.0  # of processor; four times what it takes
JOB = "audio: audio\noutput: out\nmodels: [crepe, {name: second, extractor: crepe, params: {step_mss: 5}}]\n"


@pytest.fixture
def refused(tmp_path, write_wav):
    """A job that is refused although its audio is there."""
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "job.yaml").write_text(JOB)
    return "job.yaml"


QUICK = [["--help"], ["extract", "--help"], ["models"], ["models", "crepe"], ["models", "--markdown"]]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_what_needs_no_model_answers_at_once_without_a_framework(consort, arguments):
    said = consort(*arguments, options=("-X", "importtime"))
    assert said.code == 0 and said.out and said.cpu <= SECONDS
    assert all(line.startswith("import time:") for line in said.err.splitlines())
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.err.splitlines()}
    assert "orchestrator" in imported
    assert imported.isdisjoint(FRAMEWORKS)


def test_a_refused_job_is_one_line_in_a_second_and_leaves_nothing(consort, refused, tmp_path):
    before = sorted(os.listdir(tmp_path))
    said = consort("extract", refused)
    assert said.cpu <= SECONDS
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "consort: job.yaml: models[1].params.step_mss: unknown key; did you mean step_ms?; "
        "known keys: model_capacity, step_ms, viterbi, center, backend\n"
    )
    assert sorted(os.listdir(tmp_path)) == before


def test_refusing_a_job_imports_no_framework(consort, refused):
    said = consort("extract", refused, options=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.err.splitlines()}
    assert imported.isdisjoint(FRAMEWORKS)


@pytest.fixture
def job(tmp_path, write_wav):
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "job.yaml").write_text("audio: audio\noutput: out\nmodels: [prosody]\nruntime: venv\n")
    return tmp_path / "job.yaml"


def command(job, *shell, **variables):
    """Run `consort plan` as the shell would, with the streams that it says."""
    line = f'exec "$0" -m orchestrator plan "$1" {" ".join(shell)}'
    env = {**os.environ, "CONSORT_CACHE": str(job.parent / "cache"), **variables}
    return subprocess.run(
        ["sh", "-c", line, sys.executable, str(job)],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_modules_of_others_do_not_break_the_command(job, tmp_path):
    for name in ("yaml", "numpy", "worker", "docker", "requests", "rich", "uuid"):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    plain, done = command(job), command(job, PYTHONPATH=str(tmp_path / "theirs"))
    before = [said.stdout.partition("to fetch")[0] for said in (plain, done)]  # sizes are asked of a network
    assert done.returncode == 0 and before[0] == before[1], done.stderr
    assert "prosody" in done.stdout


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "0<&-", "0<&- 2>&-"])
def test_closed_streams_do_not_break_the_command(job, shell):
    done = command(job, shell)
    assert (done.returncode, done.stderr) == (0, "") and "prosody" in done.stdout


def test_an_error_that_nobody_can_read_keeps_its_code(job):
    job.write_text("nonsense: 1\n")
    done = command(job, "2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_reader_that_goes_away_is_no_error():
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "models"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), said) == (0, b"")


def test_a_closed_stdout_is_no_error():
    command = 'exec "$0" -m orchestrator models >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "orchestrator", "models"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 4
    assert done.stderr.decode().count("\n") == 1 and b"no room" in done.stderr
