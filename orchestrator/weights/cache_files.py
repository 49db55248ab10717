"""Small files of the cache that several processes share: read, replaced in one piece, and guarded by a lock."""

import contextlib
import fcntl
import json
import os
import tempfile
import time
import typing as tp
from pathlib import Path

from orchestrator.errors import CheckpointUnavailable

_PAUSE = 0.2  # seconds between two looks at a lock that another process holds

_J = tp.TypeVar("_J", dict[str, list[tp.Any]], list[str])


def read(path: Path, empty: _J) -> _J:
    """Return what a file that can always be made again holds, or `empty`."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return empty
    return content if isinstance(content, type(empty)) else empty


def replace(path: Path, content: tp.Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, whatever dies.

    Raises:
        OSError: the cache cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(folder: Path, waiting: tp.Callable[[], None]) -> tp.Iterator[None]:
    """Hold the lock of a folder; the kernel frees it when the process dies, however it dies.

    Args:
        folder: made if it is not there.
        waiting: called again and again while another process has it; may raise to give up.

    Raises:
        CheckpointUnavailable: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise CheckpointUnavailable(f"{folder} cannot be written: {error.strerror}; set CONSORT_CACHE") from error
    with stream:
        while not _try_lock(stream):
            waiting()
            time.sleep(_PAUSE)
        yield


def _try_lock(stream: tp.IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
