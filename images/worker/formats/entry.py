"""What there is to say of a format."""

import os
import typing as tp

import numpy as np

Place = tp.Union[str, "os.PathLike[str]"]


class OutputFormat(tp.NamedTuple):
    """One kind of file that holds one array."""

    suffix: str  # with its dot
    encode: tp.Callable[[np.ndarray], bytes]  # of numbers in C order; equal arrays give equal bytes
    read: tp.Callable[[Place, str, tp.Sequence[int]], np.ndarray]  # a file, with the dtype and shape on record
    common: bool = False  # files with this ending may well be something else, such as notes
