"""What a model needs and is not there: its items wait, everything else runs, exit code 3."""

import harness
import pytest
from harness import TONE, naughty, written

from orchestrator.files import cache_root


@pytest.fixture
def job(audio, output):
    harness.write_wavs(audio, 3)
    missing = {"name": "musicnn", "params": {"checkpoint": "./none.h5"}}
    return harness.write_job(output, audio, missing, TONE, naughty("none"))


@pytest.fixture
def without_python37(tmp_path):
    """Return the variables of a user who has no Python 3.7, with the environments of others built."""
    cache, empty = tmp_path / "cache", tmp_path / "empty"
    (cache / "envs").mkdir(parents=True)
    empty.mkdir()
    assert harness.consort("envs", "build", "torch-cuda", timeout=1500).returncode == 0
    assert harness.consort("weights", "pull", "ffmpeg").returncode == 0
    real = cache_root()
    for path in (real / "envs").glob("torch-cuda-*"):
        (cache / "envs" / path.name).symlink_to(path)
    (cache / "weights").symlink_to(real / "weights")
    return {"PATH": str(empty), "HOME": str(empty), "PYENV_ROOT": "", "CONDA_EXE": "", "CONSORT_CACHE": str(cache)}


def test_a_missing_checkpoint_stops_its_model_alone(job, audio, output):
    done = harness.consort("extract", job)
    assert done.returncode == 3, done.stderr
    items = {path.name for path in audio.iterdir()}
    assert written(output) == {(model, item) for model in ("tone", "naughty") for item in items}
    (line,) = [line for line in done.stderr.splitlines() if "none.h5" in line]
    assert "musicnn" in line and "Traceback" not in done.stderr
    counts = harness.status(job)["models"]
    assert (counts["musicnn"]["done"], counts["musicnn"]["pending"]) == (0, 3)
    assert harness.status(job)["failures"] == [], "nothing is marked as handled"
    row = next(line for line in done.stdout.splitlines() if line.startswith("musicnn"))
    assert "3 unavailable" in row
    assert len(harness.launched(output)) == 1
    assert harness.consort("extract", job).returncode == 3
    assert harness.launched(output) == []


def test_a_checkpoint_that_is_no_checkpoint_stops_its_model_alone(job, output):
    (output.parent / "none.h5").write_bytes(b"no hdf5")
    done = harness.consort("extract", job)
    assert done.returncode == 3, done.stderr
    assert {model for model, _ in written(output)} == {"tone", "naughty"}
    (line,) = [line for line in done.stderr.splitlines() if line[9:].startswith("musicnn: ")]
    assert "cannot load" in line
    assert harness.status(job)["failures"] == []


def test_no_python37_is_one_clear_message(without_python37):
    done = harness.consort("envs", "build", "legacy-py37", **without_python37)
    assert done.returncode == 3, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "3.7" in line]
    for way in ("pyenv install 3.7", "conda create", "CONSORT_PYTHON_3_7", "docker"):
        assert way in line
    assert "Traceback" not in done.stderr


def test_no_python37_leaves_the_other_environments_alone(audio, output, without_python37):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, TONE, "prosody")
    done = harness.consort("extract", job, **without_python37)
    assert done.returncode == 3, done.stderr
    assert {model for model, _ in written(output)} == {"prosody"}
    lines = [line for line in done.stderr.splitlines() if "no Python 3.7" in line]
    assert len(lines) == 1 and "tone" in lines[0]
    assert harness.status(job)["models"]["tone"]["pending"] == 2


def test_an_interpreter_that_is_named_wrongly(without_python37, tmp_path):
    done = harness.consort("envs", "build", "legacy-py37", CONSORT_PYTHON_3_7=str(tmp_path), **without_python37)
    assert done.returncode == 3
    assert f"CONSORT_PYTHON_3_7={tmp_path}" in done.stderr


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    done = harness.consort("envs", "build", "legacy-py37", CONSORT_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 3, done.stderr
    assert "CONSORT_CACHE" in done.stderr and "Traceback" not in done.stderr
