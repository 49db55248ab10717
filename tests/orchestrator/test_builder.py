"""What a build says, and how it gives up. Real builds are in `tests/e2e/test_builders.py`."""

import fcntl
import threading

import pytest

from orchestrator.environments import definitions, processes, venvs
from orchestrator.errors import EnvironmentUnavailable


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Return the folder of an environment that is not built, in a cache of its own."""
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(processes, "cancelled", threading.Event())
    folder = venvs.folder(definitions.find("torch-cuda"), "cpu")
    folder.parent.mkdir(parents=True)
    return folder


def build():
    return venvs.build(definitions.find("torch-cuda"), "cpu", lambda text: None)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Looking in indexes: https://me:secret@x.org/tok/simple", "Looking in indexes: https://x.org/..."),
        ("Downloading https://x.org:8/tok/a-1-py3.whl (3 MB)", "Downloading https://x.org:8/.../a-1-py3.whl (3 MB)"),
        ("Downloading https://x.org/a-1.tar.gz?sig=tok#x", "Downloading https://x.org/.../a-1.tar.gz"),
        (
            "ERROR: Max retries exceeded with url: /tok/simple/a/ (Caused by",
            "ERROR: Max retries exceeded with url: ... (Caused by",
        ),
        ("Collecting torch==2.0", "Collecting torch==2.0"),
    ],
)
def test_nothing_that_pip_says_tells_a_secret(said, shown):
    assert processes.redact(said) == shown


def test_a_cache_that_cannot_be_written_is_one_line(target, monkeypatch):
    target.with_name(target.name + ".lock").mkdir()
    with pytest.raises(EnvironmentUnavailable, match=r"cannot be made: Is a directory; .* CONSORT_CACHE"):
        build()


def test_waiting_for_another_builder_can_be_ended(target):
    with open(target.with_name(target.name + ".lock"), "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.3, processes.cancel).start()
        with pytest.raises(EnvironmentUnavailable, match="interrupted"):
            build()
