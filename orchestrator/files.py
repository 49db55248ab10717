"""Files and folders made so that no name that was there before is followed, and none is left half-written."""

import os
import pathlib
import stat

from orchestrator.errors import RunFailed
from worker import regular


def replace(path: pathlib.Path, content: str | bytes, encoding: str = "ascii") -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whatever dies."""
    data = content if isinstance(content, bytes) else content.encode(encoding, "surrogateescape")
    partial = path.with_name(f".{path.name}.{regular.random_part()}.part")
    try:
        with os.fdopen(make_file(partial), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; make room and run again") from error


def write_new(path: pathlib.Path, text: str = "") -> None:
    """Write a file that was not there before, readable for all: a container of root's may run as another user.

    Raises:
        RunFailed: something has its name, or it cannot be written.
    """
    try:
        with os.fdopen(make_file(path), "w", encoding="ascii") as f:
            f.write(text)
            os.fchmod(f.fileno(), 0o644)  # whatever the umask
    except OSError as error:
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; run again") from error


def make_file(path: pathlib.Path) -> int:
    """Return a descriptor, for writing, of a new file; root gives it to the owner of its folder.

    Only what was just made changes its owner: what has its name already may be another's, by a hard link.
    """
    descriptor = regular.create_file(path)
    owner = os.lstat(path.parent)
    if os.geteuid() == 0 and owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def make_folder(path: pathlib.Path, new: bool = False) -> None:
    """Make a folder; root gives it to the owner of the one around it, as whom containers write there.

    Args:
        path: whose parent is there.
        new: it must not be there already.
    """
    try:
        path.mkdir()
    except FileExistsError:
        if new or not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
        return
    owner = os.lstat(path.parent)
    if os.geteuid() == 0 and owner.st_uid:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
