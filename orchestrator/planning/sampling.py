"""Hash some of the arrays that count as done, and all of a model's where one is not what its record says."""

import dataclasses
import math
import random
import time
import typing as tp

from orchestrator.output.ledger import Ledger
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.look import Look
from worker.protocol import Record

_SHARE, _LEAST = 0.01, 20  # items of each model, or arrays where items have several
_SECONDS, _BYTES = 1.0, 200 << 20  # what it may take, all models together


@dataclasses.dataclass(frozen=True)
class Doubt:
    """Items of a model whose arrays are not what their records say."""

    broken: set[str]
    words: str


def check(models: list[ModelPlan], done: tp.Mapping[str, list[str]], ledger: Ledger, look: Look) -> dict[str, Doubt]:
    """Return the models whose arrays were changed behind their records, by name; `done` are the items of each."""
    found = {}
    for model in models:
        items = done[model.name]
        drawn = random.sample(items, min(len(items), max(_LEAST, math.ceil(_SHARE * len(items)))))
        seen = _find_broken(model, drawn, ledger, look, share=1 / len(models))
        if any(seen.values()):
            every = _find_broken(model, items, ledger, look)
            broken = {item for item, bad in every.items() if bad}
            some = f"{model.name}: {sum(seen.values())} of {len(seen)} arrays that were looked at"
            words = f"{some} are not what was written; {len(broken)} of all {len(every)} are computed again"
            found[model.name] = Doubt(broken, words)
    return found


def _find_broken(
    model: ModelPlan, items: list[str], ledger: Ledger, look: Look, share: float | None = None
) -> dict[str, bool]:
    """Return whether any array of an item is broken, by item; with a share, as far as that share of the limits goes."""
    found = {}
    deadline, left = time.monotonic() + _SECONDS * (share or 0), _BYTES * (share or 0)
    for item in items:
        records = _records(model, item, ledger)
        found[item] = not all(map(look.intact, records))
        left -= sum(record.bytes for record in records)
        if share and (left < 0 or time.monotonic() > deadline):
            break
    return found


def _records(model: ModelPlan, item: str, ledger: Ledger) -> list[Record]:
    return [record for output in model.task.outputs for record in ledger.of(item, model.name, output)]
