"""Files on this host: hashed, locked, replaced in one piece, and made where nothing was before."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import stat
import time
import typing as tp

from orchestrator.errors import RunFailed
from orchestrator.text import printable
from worker import regular

_CHUNK = 1 << 18
_PAUSE = 0.2  # seconds between two looks at a lock that another process holds

_J = tp.TypeVar("_J", dict[str, list[tp.Any]], list[str])


def cache_root(environ: tp.Mapping[str, str] = os.environ) -> pathlib.Path:
    """Return the folder for everything that can be fetched or built again."""
    if environ.get("CONSORT_CACHE"):
        return pathlib.Path(environ["CONSORT_CACHE"]).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(base) if base else pathlib.Path.home() / ".cache") / "consort"


def sha256_of(path: pathlib.Path) -> str:
    """Return the hash of a file in hexadecimal digits."""
    return _hash(path, hashlib.sha256())


def git_blob_of(path: pathlib.Path) -> str:
    """Return the sha1 by which git knows the content of a file."""
    return _hash(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _hash(path: pathlib.Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(folder: pathlib.Path) -> int:
    """Return the bytes of all files below a folder; what several names share counts once."""
    seen: set[int] = set()
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                found = os.lstat(os.path.join(base, name))
                total += 0 if found.st_ino in seen else found.st_size
                seen.add(found.st_ino)
    return total


def try_lock(file: tp.IO[tp.Any], shared: bool = False) -> bool:
    """Take the lock of an open file if it is free; the kernel frees it when the process dies, however it dies."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: pathlib.Path, waiting: tp.Callable[[], None]) -> tp.Iterator[None]:
    """Hold the lock file `path`, which stays: another process may be waiting for it.

    Args:
        path: made if it is not there, with its folder.
        waiting: called again and again while another process has it; may raise to give up.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as f:
        while not try_lock(f):
            waiting()
            time.sleep(_PAUSE)
        yield


@contextlib.contextmanager
def taken(path: pathlib.Path) -> tp.Iterator[bool]:
    """Hold the lock file `path` unless somebody else does, and say whether; nobody does where there is none.

    What cannot be opened, or is no file, is left to whoever made it.
    """
    with contextlib.ExitStack() as stack:
        try:
            free = try_lock(stack.enter_context(os.fdopen(regular.open_file(path), "rb")))
        except FileNotFoundError:
            free = True
        except OSError:
            free = False
        yield free


@contextlib.contextmanager
def written(path: pathlib.Path, partial: pathlib.Path | None = None) -> tp.Iterator[tp.IO[bytes]]:
    """Open a file that takes the place of `path` at the end, synced: a reader sees the old or the new one.

    Args:
        path: in a folder that is there.
        partial: its name until then, where a lock is held and no sweep would find one that nobody can foretell.

    Raises:
        OSError: it cannot be written; nothing half-written stays.
    """
    partial = partial or path.with_name(f".{path.name}.{regular.random_part()}.part")
    try:
        with os.fdopen(make_file(partial), "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace(path: pathlib.Path, content: str | bytes, encoding: str = "ascii") -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whatever dies.

    Raises:
        RunFailed: it cannot be written.
    """
    data = content if isinstance(content, bytes) else content.encode(encoding, "surrogateescape")
    try:
        with written(path) as f:
            f.write(data)
    except OSError as error:
        then = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; {then} and run again") from error


def read_json(path: pathlib.Path, empty: _J) -> _J:
    """Return what a file that can always be made again holds, or `empty`."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return empty
    return content if isinstance(content, type(empty)) else empty


def replace_json(path: pathlib.Path, content: tp.Any) -> None:
    """Write JSON as `replace` does, into a folder that need not be there.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as f:
        f.write((json.dumps(content, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def write_new(path: pathlib.Path, text: str = "") -> None:
    """Write a file that was not there before, readable for all: a container of root's may run as another user.

    Raises:
        RunFailed: something has its name, or it cannot be written.
    """
    try:
        with os.fdopen(make_file(path), "w", encoding="ascii") as f:
            f.write(text)
            os.fchmod(f.fileno(), 0o644)  # whatever the umask
    except FileExistsError as error:
        raise RunFailed(f"{printable(str(path))} was made by somebody else; remove it and run again") from error
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


def open_log(path: pathlib.Path) -> tp.TextIO:
    """Return a new file for what a process prints; what has its name is removed, not followed."""
    path.unlink(missing_ok=True)
    return os.fdopen(make_file(path), "w", encoding="utf-8")


def read_text(path: pathlib.Path, encoding: str = "ascii") -> str:
    """Return the text of a file that others may have made: a FIFO or a device is not waited for.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is no text.
    """
    with open(path, encoding=encoding, opener=_without_waiting) as f:
        return f.read()


def read_lines(path: pathlib.Path) -> tp.Iterator[str]:
    """Yield the lines of a file of any size, under the same conditions as `read_text`."""
    with open(path, encoding="ascii", opener=_without_waiting) as f:
        yield from f


def read_end(path: pathlib.Path, size: int) -> str:
    """Return the last `size` bytes of a regular file, however long it is.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with os.fdopen(regular.open_file(path), "rb") as f:
        f.seek(max(0, os.fstat(f.fileno()).st_size - size))
        return f.read(size).decode("utf-8", "replace")


def _without_waiting(path: str, flags: int) -> int:
    """Follow a link, as version control makes them of results, but only to a file."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", path)
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
