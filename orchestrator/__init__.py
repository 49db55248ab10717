"""One YAML job in, every audio embedding out: drives workers in environments that exclude each other.

Public names: `load` reads what a job has written.
"""

from orchestrator.output.load import Matrix, Run, load

__version__ = "0.4.0"
__all__ = ["Matrix", "Run", "load"]
