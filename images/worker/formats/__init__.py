"""How arrays become files, and how files are read: one module per format, and one line for it below.
An array of plain numbers comes in, and the bytes of a file go out; or a file of its kind, and the array.
Where a file stands, and what is in it, is not known here.
"""

import os
import typing as tp

import numpy as np

from worker.formats import npy, npz, txt
from worker.formats.entry import OutputFormat, Place

FORMATS: tp.Dict[str, OutputFormat] = {"npy": npy.FORMAT, "npz": npz.FORMAT, "txt": txt.FORMAT}  # the first: default


def find(path: Place) -> tp.Optional[OutputFormat]:
    """Return the format of a file by its ending; None where no format has it."""
    suffix = os.path.splitext(path)[1]
    return next((entry for entry in FORMATS.values() if entry.suffix == suffix), None)


def read(path: Place, dtype: str, shape: tp.Sequence[int]) -> np.ndarray:
    """Return the values of a file, with the type and the shape that are on record."""
    return (find(path) or npy.FORMAT).read(path, dtype, shape)
