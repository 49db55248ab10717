"""An environment outside the tree: a folder that the job names."""

import harness
import numpy as np
import pytest
from harness import ELSEWHERE, TONE


@pytest.fixture
def my_env(tmp_path):
    """Return such a folder; what is built of it is removed."""
    folder = harness.write_environment(tmp_path / "my_env")
    yield folder
    done = harness.consort("envs", "remove", folder)
    assert done.returncode == 0, done.stderr


def test_a_model_runs_in_it_with_its_own_modules(audio, output, my_env):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, ELSEWHERE, TONE, environments=["./my_env"])
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("good_00", "good_01"):
        own, plain = (np.load(output / model / f"{name}.npy") for model in ("elsewhere", "tone"))
        np.testing.assert_allclose(own, 3 * plain, rtol=1e-6)
    assert harness.status(output)["models"]["elsewhere"]["done"] == 2

    listed = harness.consort("envs", "list", "./my_env", cwd=my_env.parent)
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [["my_env", "3.11", "ready"]]
    asked = harness.consort("python", my_env, "-c", "import own_numbers, worker; print(own_numbers.GAIN)")
    assert asked.stdout == "3.0\n", asked.stderr


@pytest.mark.parametrize("runtime", ["venv", "auto"])
def test_without_it_the_model_is_refused_before_anything_starts(runtime, audio, output):
    harness.write_wavs(audio, 1)
    job = harness.write_job(output, audio, ELSEWHERE, runtime=runtime)
    for verb in ("plan", "extract"):
        done = harness.consort(verb, job)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "environment 'my_env': unknown environment; " in done.stderr and "torch-cuda" in done.stderr
    assert not output.exists()


def test_compose_has_no_service_for_it_and_says_so(audio, output, my_env):
    harness.write_wavs(audio, 1)
    done = harness.consort("compose", "plan", harness.write_job(output, audio, ELSEWHERE, environments=[str(my_env)]))
    assert done.returncode == 3, done.stderr
    assert "my_env: docker-compose.yml has no service for it; use `consort extract`" in done.stderr
