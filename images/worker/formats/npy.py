"""NumPy's own format for one array, without pickle."""

import io
import typing as tp

import numpy as np

from worker.formats.entry import OutputFormat, Place


def _encode(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _read(path: Place, dtype: str, shape: tp.Sequence[int]) -> np.ndarray:
    return np.asarray(np.load(path, allow_pickle=False))


FORMAT = OutputFormat(".npy", _encode, _read)
