"""The one program that every environment runs. Python 3.7+, standard library and numpy only."""

from worker.extractor import (
    Arrays,
    Batch,
    Checkpoint,
    Extractor,
    Output,
    Stream,
    WholeFile,
    WindowChoice,
    Windows,
    between,
    choice,
)

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
