"""What several verbs say: failures, flagged sources, untrained weights, and paths as a person would type them."""

import contextlib
import os
import typing as tp

from orchestrator.job import listed
from orchestrator.job.items import LeftOut
from orchestrator.output import flagged
from orchestrator.planning.plan import FAILED, Plan
from orchestrator.text import printable
from worker.protocol import Failure

_WORDS = {listed.MISSING: "missing", listed.NO_AUDIO: "no audio"}
_SHOWN = 10  # failures, or flagged items, that are listed without --verbose


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


def print_flagged(found: flagged.Flagged, everything: bool) -> None:
    """List items whose source is not what it seems; without `everything` the grave ones alone, and a few of them."""
    told = [(flag, item, more) for flag in found for item, more in found[flag].items()]
    grave = [one for one in told if one[0] in flagged.GRAVE]
    for flag, item, more in told if everything else grave[:_SHOWN]:
        print(f"  {flag:<13}  {printable(item)}{': ' if more else ''}{printable(more)}")
    if not everything and len(grave) > _SHOWN:
        print(f"  ... and {len(grave) - _SHOWN} more; --verbose lists them all")


def sum_up(counts: tp.Mapping[str, int]) -> str:
    """Return counted flags as `1 truncated, 2 clipped`."""
    return ", ".join(f"{number} {flag}" for flag, number in counts.items())


def print_left_out(left_out: tp.Iterable[LeftOut]) -> None:
    """Say what was not taken, or will fail, a line for each reason."""
    for one in left_out:
        word = next((word for reason, word in _WORDS.items() if one.reason.startswith(reason)), "left out")
        print(f"  {word:<10}  {one}")


def warn_of_random(models: tp.Iterable[str]) -> None:
    """Say loudly which models' weights were never trained: their arrays only look like embeddings."""
    if names := ", ".join(sorted(models)):
        print(f"RANDOM WEIGHTS: {names}: never trained, their arrays mean nothing (PROVENANCE.json)")


def chosen(plan: Plan) -> str:
    """Say how many items are to do, and how those that failed are tried again."""
    failed = sum(FAILED in choice.states.values() for choice in plan.choices)
    earlier = f", {failed} failed earlier (--retry-failed tries them again)" if failed else ""
    return f"{len(plan.chosen)} of {len(plan.choices)} items to do{earlier}"


def waiting(counts: tp.Mapping[str, int]) -> list[str]:
    """Say of each model that waits how many items wait with it."""
    return [f"  waiting     {name}: {n} items, for what `consort fit` makes" for name, n in counts.items() if n]


def last(plan: Plan) -> list[str]:
    """Say which command models wait for: the last word of a run that has done all else."""
    total = len(plan.models)
    return [
        f"{len(models)} of {total} models {'wait' if len(models) > 1 else 'waits'} for `{command}`"
        for command, models in plan.waiting.items()
    ]


@contextlib.contextmanager
def unread() -> tp.Iterator[None]:
    """Print what somebody may stop reading: how a run has ended is not changed by that."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def near(path: str | os.PathLike[str]) -> str:
    """Return a path as a person would type it from here."""
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith("..") else relative
