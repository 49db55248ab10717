"""Arrays that are there already under another item: of a file that was renamed or moved, or of its copy."""

import collections
import dataclasses
import functools
import os
import typing as tp

from orchestrator.job.items import Source
from orchestrator.output.ledger import Ledger
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.look import Look
from worker import protocol
from worker.protocol import Record

_FEW = 8  # files of one size, below which it says enough to read them


class Copy(tp.NamedTuple):
    """What takes the place of a computation."""

    path: str  # of the array that is there
    record: Record  # of the one that is made of it


class Twins:
    """Finds them by the content of a source. One that is new is read only where it may be one that is known."""

    def __init__(self, models: list[ModelPlan], sources: list[Source], ledger: Ledger, look: Look) -> None:
        self._outputs = {model.name: model.task.outputs[0] for model in models}
        self._sources = sources
        self._ledger = ledger
        self._look = look

    def sha256(self, source: Source) -> str:
        """Return the hash of a source of which nothing is known; "" where it looks like none that has arrays."""
        sizes, looks = self._known
        alike = not looks.isdisjoint([(source.size, source.mtime_ns), (source.size, os.path.basename(source.id))])
        few = source.size in sizes and sizes[source.size] + self._new[source.size] <= _FEW
        return self._look.sha256(source, self._ledger) if alike or few else ""

    def find(self, source: Source, sha: str, model: ModelPlan, fits: tp.Callable[[Record], bool]) -> list[list[Record]]:
        """Return the arrays of another item, of each output, that are what `model` would make of `source`.

        `fits` says whether one is what today's job would make, and is there.
        """
        if not sha:
            return []
        key = protocol.key_of(model.task.key, model.task.outputs[0], sha, source.part)
        for item in self._by_key.get((model.name, key), ()):
            found = [self._ledger.of(item, model.name, output) for output in model.task.outputs]
            if item != source.id and all(part and all(map(fits, part)) for part in found):
                return found
        return []

    @functools.cached_property
    def _by_key(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for record in self._ledger.records.values():
            if self._outputs.get(record.model) == record.output and not record.window:
                found.setdefault((record.model, record.key), []).append(record.item)
        return found

    @functools.cached_property
    def _known(self) -> tuple[collections.Counter[int], set[tuple[int, int | str]]]:
        """How many sources of each size have arrays, and what (size, time) and (size, name) they have."""
        recorded = {key[0] for key in self._ledger.records}
        facts = [(item, facts) for item, facts in self._ledger.sources.items() if item in recorded]
        looks: set[tuple[int, int | str]] = {(seen.size, seen.mtime_ns) for _, seen in facts}
        looks.update((seen.size, os.path.basename(item)) for item, seen in facts)
        return collections.Counter(seen.size for _, seen in facts), looks

    @functools.cached_property
    def _new(self) -> collections.Counter[int]:
        return collections.Counter(s.size for s in self._sources if s.id not in self._ledger.sources)


def moved(record: Record, source: Source, path: str) -> Copy:
    """Return the array of `record` as that of `source`, at `path`."""
    return Copy(record.path, dataclasses.replace(record, item=source.id, path=path))
