"""What several verbs say: failures with their reasons, untrained weights, and paths as a person would type them."""

import os
import typing as tp

from orchestrator.job.items import LeftOut
from orchestrator.text import printable
from worker.protocol import Failure

_SHOWN = 10  # failures that are listed without --verbose


def print_failures(failures: tp.Iterable[Failure], everything: bool) -> None:
    """List failures by item; the models of an item that failed for one reason share a line."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for one in sorted(failures, key=lambda one: (one.item, one.model, one.kind, one.message)):
        grouped.setdefault((one.item, one.kind, one.message), []).append(one.model)
    shown = list(grouped.items())[: None if everything else _SHOWN]
    for (item, kind, message), names in shown:
        where, reason = printable(item), printable(message)
        for known in (where, os.path.basename(where)):  # decoders know no more than the latter
            reason = reason.removeprefix(f"{known}: ")
        print(f"  {kind:<10}  {where}: {reason}  ({', '.join(names)})")
    if len(grouped) > len(shown):
        print(f"  ... and {len(grouped) - len(shown)} more; --verbose lists them all")


def print_left_out(left_out: tp.Iterable[LeftOut]) -> None:
    """Say what was not taken, a line for each reason."""
    for one in left_out:
        print(f"  left out    {one}")


def warn_of_random(models: tp.Iterable[str]) -> None:
    """Say loudly which models' weights were never trained: their arrays only look like embeddings."""
    if names := ", ".join(sorted(models)):
        print(f"RANDOM WEIGHTS: {names}: never trained, their arrays mean nothing (PROVENANCE.json)")


def near(path: str | os.PathLike[str]) -> str:
    """Return a path as a person would type it from here."""
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith("..") else relative
