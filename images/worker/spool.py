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
    """
    dtype = np.dtype(dtype)
    count = int(np.prod(np.asarray(shape, dtype=np.int64)))
    if count * dtype.itemsize <= limit:
        return np.zeros(tuple(shape), dtype)
    descriptor, path = tempfile.mkstemp(prefix=".spool-", dir=folder)
    try:
        os.unlink(path)
        os.ftruncate(descriptor, count * dtype.itemsize)
        mapped = mmap.mmap(descriptor, count * dtype.itemsize)
    finally:
        os.close(descriptor)
    return np.frombuffer(mapped, dtype, count).reshape(tuple(shape))
