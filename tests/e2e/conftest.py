"""Fixtures of the end-to-end tests: the real command, in processes of their own."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness
from fixtures import audio, output, start  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def legacy() -> None:
    """Build the environment of the cheap models before anything is timed."""
    done = harness.consort("envs", "build", "legacy-py37", timeout=900)
    assert done.returncode == 0, done.stderr
