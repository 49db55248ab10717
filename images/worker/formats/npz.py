"""NumPy's archive of arrays, which holds one here, called `values`."""

import io
import typing as tp

import numpy as np

from worker.formats.entry import OutputFormat, Place


def _encode(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, values=values)
    return buffer.getvalue()


def _read(path: Place, dtype: str, shape: tp.Sequence[int]) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive["values"])


FORMAT = OutputFormat(".npz", _encode, _read)
