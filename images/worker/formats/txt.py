"""Text with a row per line and commas between values, which knows neither its type nor all of its shape."""

import typing as tp

import numpy as np

from worker.errors import ArrayError
from worker.formats.entry import OutputFormat, Place


def _encode(values: np.ndarray) -> bytes:
    rows = np.atleast_2d(values)
    if rows.ndim != 2:
        raise ArrayError("format txt holds at most two axes, this array has {}".format(values.ndim))
    return "".join(",".join("%.9g" % v for v in row) + "\n" for row in rows).encode("ascii")


def _read(path: Place, dtype: str, shape: tp.Sequence[int]) -> np.ndarray:
    if 0 in shape:
        return np.zeros(shape, dtype)  # numpy warns of a file without a line
    return np.asarray(np.loadtxt(path, delimiter=",", dtype=dtype, ndmin=2).reshape(shape))


FORMAT = OutputFormat(".txt", _encode, _read, common=True)
