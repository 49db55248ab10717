"""Fixtures of the end-to-end tests: the real command, in processes of their own."""

import pathlib
import sys
import typing as tp

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness
from fixtures import audio, output, start  # noqa: F401


@pytest.fixture(scope="package", autouse=True)
def no_docker() -> tp.Iterator[None]:
    """Hide the engine of this machine: these tests are those of virtual environments, whatever `auto` would take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
        yield


@pytest.fixture(scope="session", autouse=True)
def legacy() -> None:
    """Build the environment of the cheap models before anything is timed."""
    done = harness.consort("envs", "build", "legacy-py37", timeout=900)
    assert done.returncode == 0, done.stderr
