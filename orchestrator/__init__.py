"""One YAML job in, every audio embedding out: drives workers in environments that exclude each other.

Public names: `load` reads what a job has written.
"""

import typing as tp

if tp.TYPE_CHECKING:
    from orchestrator.output.load import Matrix, Run, load

__version__ = "0.4.0"
__all__ = ["Matrix", "Run", "load"]


def __getattr__(name: str) -> tp.Any:
    """Import what reads arrays when it is asked for: the command looks after `sys.path` first."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator.output import load as reading

    return getattr(reading, name)
