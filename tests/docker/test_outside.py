"""An environment outside the tree as an image: its folder is not in the context that the others are built from."""

import harness
import pytest
from engine import docker
from harness import ELSEWHERE


@pytest.fixture
def my_env(tmp_path):
    """Return such a folder; what is built of it is removed."""
    folder = harness.write_environment(tmp_path / "my_env")
    yield folder
    for runtime in ("docker", "venv"):
        done = harness.consort("envs", "remove", folder, "--runtime", runtime)
        assert done.returncode == 0, done.stderr


def test_it_is_built_and_gives_the_same_as_a_virtual_environment(audio, output, tmp_path, my_env):
    harness.write_wavs(audio, 2)
    (my_env / "big").write_bytes(bytes(1 << 20))  # which nobody needs
    (my_env / "own_numbers" / "__init__.py").chmod(0o600)  # as some have it
    job = harness.write_job(output, audio, ELSEWHERE, environments=["./my_env"])
    for runtime in ("docker", "venv"):
        done = harness.consort("extract", job, "--runtime", runtime, "--output", tmp_path / runtime, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert harness.written(tmp_path / runtime) == {("elsewhere", f"good_0{n}.wav") for n in range(2)}
    assert harness.fingerprint(tmp_path / "docker") == harness.fingerprint(tmp_path / "venv")

    listed = harness.consort("envs", "list", my_env, "--runtime", "docker")
    assert [line.split()[2] for line in listed.stdout.splitlines()[1:]] == ["ready"]
    inside = docker("run", "--rm", "--entrypoint", "ls", "consort/my_env:cpu", "/opt/consort").split()
    read = docker("run", "--rm", "--entrypoint", "cat", "consort/my_env:cpu", "/opt/consort/own_numbers/__init__.py")
    assert read == "GAIN = 3.0", "the user inside is another one"
    made = ["__pycache__", "made-of.json", "own_numbers", "requirements.lock", "sitecustomize.py", "worker"]
    assert inside == made
