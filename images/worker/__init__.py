"""The one program that every environment runs: a shard comes in, arrays and events go out.

Python 3.7+, standard library and numpy only; the host imports it, it never imports the host.
"""

from worker.extractor import (
    Arrays,
    Batch,
    Checkpoint,
    Extractor,
    Output,
    Stream,
    WholeFile,
    Windows,
    between,
    choice,
)
from worker.request import WindowChoice

__all__ = [
    "Arrays",
    "Batch",
    "Checkpoint",
    "Extractor",
    "Output",
    "Stream",
    "WholeFile",
    "WindowChoice",
    "Windows",
    "between",
    "choice",
]
