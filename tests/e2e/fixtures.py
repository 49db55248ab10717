"""Fixtures that the end-to-end tests share with those on a Docker engine."""

import pathlib
import typing as tp

import harness
import pytest


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
