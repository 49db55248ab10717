"""Large arrays that live on the disk instead of in memory, so that files of any length fit."""

import mmap
import os
import tempfile
import typing as tp

import numpy as np

LIMIT = 64 << 20  # bytes an array may take in memory before it goes to the disk


def allocate(shape: tp.Sequence[int], dtype: tp.Any, folder: str, limit: int = LIMIT) -> np.ndarray:
    """Return an array of zeros; above `limit` bytes it is backed by an unlinked file in `folder`.

    The file has no name once it is open, so no death of the process can leave it behind.

    Raises:
        MemoryError: `folder` has no room for it.
    """
    dtype = np.dtype(dtype)
    count = int(np.prod(np.asarray(shape, dtype=np.int64)))
    if count * dtype.itemsize <= limit:
        return np.zeros(tuple(shape), dtype)
    descriptor, path = tempfile.mkstemp(prefix=".spool-", dir=folder)
    try:
        os.unlink(path)
        _reserve(descriptor, count * dtype.itemsize)
        mapped = mmap.mmap(descriptor, count * dtype.itemsize)
    except OSError as error:
        needed = count * dtype.itemsize >> 20
        raise MemoryError("no room in {} for {} MB: {}".format(folder, needed, error.strerror)) from error
    finally:
        os.close(descriptor)
    return np.frombuffer(mapped, dtype, count).reshape(tuple(shape))


def _reserve(descriptor: int, size: int) -> None:
    """Take the room now: a full disk found while writing to the map would kill the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
