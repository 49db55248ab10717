"""Regular files and nothing else: where others may write, a name can be a link, a FIFO or a device by now."""

import errno
import os
import stat
import typing as tp

_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # a FIFO must not be waited for


def open_file(path: tp.Union[str, "os.PathLike[str]"], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Return a descriptor of the regular file `path`; flags as of `os.open`.

    Raises:
        OSError: it is a link, a FIFO, a device or a folder, or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | _SAFE, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # what O_NOFOLLOW and O_NONBLOCK say of them
            raise OSError(errno.EINVAL, "is no regular file", os.fspath(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", os.fspath(path))
    return descriptor


def random_part() -> str:
    """Return what makes the name of a temporary file one that nobody can foretell."""
    return os.urandom(8).hex()


def create_file(path: tp.Union[str, "os.PathLike[str]"], mode: int = 0o666) -> int:
    """Return a descriptor, for writing, of a file that was not there before.

    Raises:
        FileExistsError: something has that name, be it a link to nowhere.
        OSError: it cannot be made.
    """
    return open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
