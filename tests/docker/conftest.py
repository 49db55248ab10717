"""Fixtures of the tests on a real Docker engine. Without one they are skipped, and say why; CI allows no skip."""

import pathlib
import sys
import typing as tp

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness
from engine import containers
from fixtures import audio, output, start  # noqa: F401

from orchestrator.environments import docker_client
from orchestrator.errors import EnvironmentUnavailable


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """Build the images of this checkout, and the environments that they are compared with."""
    try:
        docker_client.find()
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    for runtime in ("docker", "venv"):
        done = harness.consort("envs", "build", "--runtime", runtime, "--variant", "cpu", timeout=3000)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tp.Dict[str, str]:
    """Return the fingerprint of the quickstart's arrays as virtual environments make them."""
    folder = tmp_path_factory.mktemp("quickstart") / "venv"
    job = harness.REPOSITORY / "config/quickstart.yaml"
    done = harness.consort("extract", job, "--runtime", "venv", "--output", folder, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "runtime venv (asked for)" in done.stderr
    return harness.fingerprint(folder)


@pytest.fixture(autouse=True)
def clean() -> tp.Iterator[None]:
    """Hold every test to leaving no container behind."""
    yield
    assert containers() == []
