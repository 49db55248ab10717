"""Fixtures of the end-to-end tests: the real command, in processes of their own."""

import pathlib
import sys
import typing as tp

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness


@pytest.fixture(scope="session", autouse=True)
def legacy() -> None:
    """Build the environment of the cheap models before anything is timed."""
    done = harness.consort("envs", "build", "legacy-py37", timeout=900)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def start() -> tp.Iterator[tp.Callable[..., harness.Started]]:
    """Return a function that starts the command in the background; what lives at the end is killed."""
    started = []

    def launch(*arguments: tp.Any, **options: tp.Any) -> harness.Started:
        started.append(harness.Started(*arguments, **options))
        return started[-1]

    yield launch
    for one in started:
        one.kill_tree()
        one.close()


@pytest.fixture
def audio(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return an empty folder for audio."""
    folder = tmp_path / "audio"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return where arrays go; it does not exist yet."""
    return tmp_path / "out"
