"""What a job would do: which models lack which items. Decides, and starts nothing."""

import collections
import dataclasses
import json
import math
import os
import typing as tp

from orchestrator.job.items import LeftOut, Source
from orchestrator.job.spec import JobSpec
from orchestrator.output import naming
from orchestrator.output.ledger import Ledger
from orchestrator.planning import sampling
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.look import Look
from orchestrator.planning.reuse import Copy, Twins, moved
from worker import protocol
from worker.protocol import Record
from worker.work import store

DONE, TODO, STALE, FAILED = "done", "todo", "stale", "failed"
REUSED = "reused"  # the array is there under another item, and is copied
WAITING = "waiting"  # for a model that `consort fit` makes of what this job writes


@dataclasses.dataclass(frozen=True, slots=True)  # there may be 100,000
class Choice:
    """An item of the job, its name, and the state of each model: done, todo, stale, failed, reused or waiting."""

    source: Source
    name: str
    states: dict[str, str]

    @property
    def missing(self) -> list[str]:
        return [model for model, state in self.states.items() if state in (TODO, STALE)]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All items in order of their ids; `chosen` are those this run works on."""

    models: list[ModelPlan]
    choices: list[Choice]
    chosen: list[Choice]
    seconds: dict[str, float]  # duration of each item, an estimate until it was decoded
    copies: dict[tuple[str, str], list[Copy]] = dataclasses.field(default_factory=dict)  # by item and model
    doubts: list[str] = dataclasses.field(default_factory=list)  # what a look at some arrays has shown, in words

    def count(self, model: str, state: str) -> int:
        """Return how many items are in `state` for `model`."""
        return sum(choice.states[model] == state for choice in self.choices)

    def work(self, model: ModelPlan) -> list[Choice]:
        """Return the chosen items that `model` lacks."""
        return [choice for choice in self.chosen if model.name in choice.missing]

    def remarks(self) -> list[str]:
        """Return what a user should know beside the counts, a line each."""
        arrays = sum(map(len, self.copies.values()))
        there = f"{arrays} arrays of renamed, moved or copied files are there already and will be copied"
        return [*self.doubts, *([there] if arrays else [])]

    def without_copies(self, lost: tp.Collection[tuple[str, str]]) -> "Plan":
        """Return the plan in which those (item, model) are computed, too."""
        items = {item for item, _ in lost}

        def changed(choice: Choice) -> Choice:
            found = {m: TODO if (choice.source.id, m) in lost else state for m, state in choice.states.items()}
            return dataclasses.replace(choice, states=found)

        choices = [changed(choice) if choice.source.id in items else choice for choice in self.choices]
        ids = items | {choice.source.id for choice in self.chosen}
        return dataclasses.replace(self, choices=choices, chosen=[c for c in choices if c.source.id in ids])

    @property
    def waiting(self) -> dict[str, list[ModelPlan]]:
        """The models that wait, by the command that they wait for."""
        found: dict[str, list[ModelPlan]] = {}
        for model in self.models:
            if model.awaits and self.count(model.name, WAITING):
                found.setdefault(model.awaits, []).append(model)
        return found

    def cost(self, choice: Choice) -> float:
        """Return the rough CPU seconds of one item."""
        rates = sum(m.extractor.seconds_per_minute for m in self.models if m.name in choice.missing)
        return self.seconds[choice.source.id] / 60 * rates

    def bytes(self) -> int:
        """Return the rough size of the arrays this run would write."""
        return int(sum(_size(m, self.seconds[c.source.id]) for m in self.models for c in self.work(m)))


def make(
    job: JobSpec,
    models: list[ModelPlan],
    sources: list[Source],
    ledger: Ledger,
    seconds: dict[str, float],
    look: Look,
    sample: bool = True,
) -> Plan:
    """Return what is done and what is to do.

    Args:
        job: resume mode, limit and whether failures are tried again.
        models: from `keys.model_plan`.
        sources: from the scan, sorted by id.
        ledger: what earlier runs wrote.
        seconds: estimated durations, which the plan takes over; what a record knows takes their place.
        look: answers about files; the only I/O.
        sample: hash some of the arrays that are done by their keys, too.
    """
    kept: dict[str, str] = {}
    for record in ledger.records.values():
        kept[record.item] = _name_of(record)  # also of items that are gone: their arrays are still there
        if record.item in seconds:
            seconds[record.item] = record.duration
    parts = {source.id: f"#{source.part}" for source in sources if source.part is not None}
    names = naming.assign([source.id for source in sources], kept, parts)
    failed = {item for item, _ in ledger.failures}
    twins = Twins(models, sources, ledger, look) if job.resume in ("key", "strict") else None
    copies: dict[tuple[str, str], list[Copy]] = {}
    choices = []
    teachers = {m.spec.reference for m in models if m.teaches}
    waiting = {m.name for m in models if m.awaits and m.spec.reference in teachers}
    equal: dict[tuple[str, ...], dict[str, str]] = {}
    for source in sources:
        name = names[source.id]
        known = source.id in kept or source.id in failed
        sha = look.sha256(source, ledger) if known else twins.sha256(source) if twins else ""
        states = {m.name: _state(job, m, source, name, sha, ledger, look) for m in models}
        for model in [m for m in models if states[m.name] in (TODO, STALE)]:
            if twins and (found := _copies(twins, source, sha, model, name, look, job.resume == "strict")):
                copies[source.id, model.name] = found
                states[model.name] = REUSED
        states |= {name: WAITING for name in waiting if states[name] in (TODO, STALE)}
        choices.append(Choice(source, name, equal.setdefault(tuple(states.values()), states)))
    doubts: list[str] = []
    if sample and job.resume in ("key", "strict"):
        choices, doubts = _doubt(models, choices, ledger, look)
    lacking = [choice for choice in choices if choice.missing]
    chosen = lacking if job.limit is None else _first(lacking, job.limit, ledger)
    return Plan(models, choices, chosen, seconds, copies, doubts)


def _doubt(
    models: list[ModelPlan], choices: list[Choice], ledger: Ledger, look: Look
) -> tuple[list[Choice], list[str]]:
    """Return the choices with arrays as stale that were changed behind their records, and that in words."""
    done = {m.name: [c.source.id for c in choices if c.states[m.name] == DONE] for m in models}
    found = sampling.check(models, done, ledger, look)

    def changed(choice: Choice) -> Choice:
        broken = {model: STALE for model, doubt in found.items() if choice.source.id in doubt.broken}
        return dataclasses.replace(choice, states={**choice.states, **broken}) if broken else choice

    return list(map(changed, choices)) if found else choices, [doubt.words for doubt in found.values()]


def _copies(
    twins: Twins, source: Source, sha: str, model: ModelPlan, name: str, look: Look, strict: bool
) -> list[Copy]:
    """Return what a copy of another item's arrays would be; none where there are none."""
    found = twins.find(source, sha, model, lambda r: _fits(r, model, sha, source, _name_of(r), look, strict))
    records = [record for part in found for record in part]
    return [moved(r, source, paths_of(model, name, r.window or 0)[r.output]) for r in records]


def _first(lacking: list[Choice], limit: int, ledger: Ledger) -> list[Choice]:
    """Return the first `limit` items in order of their ids; those that failed before only when no others are left.

    Otherwise repeating a command would try the same failing items for ever.
    """
    failed = {c.source.id for c in lacking if any((c.source.id, model) in ledger.failures for model in c.missing)}
    chosen = sorted(lacking, key=lambda choice: choice.source.id in failed)[:limit]
    return sorted(chosen, key=lambda choice: choice.source.order)


def _state(job: JobSpec, model: ModelPlan, source: Source, name: str, sha: str, ledger: Ledger, look: Look) -> str:
    if job.resume == "never":
        return TODO
    paths = paths_of(model, name)
    records = [ledger.of(source.id, model.name, output) for output in model.task.outputs]
    known = {record.path: record.bytes for found in records for record in found}
    expected = {*paths.values(), *(record.path for found in records for record in found if record.windows)}
    if job.resume == "exists" and all(look.present(path, known.get(path)) for path in expected):
        return DONE
    if all(
        found and all(_fits(r, model, sha, source, name, look, job.resume == "strict") for r in found)
        for found in records
    ):
        return DONE
    failure = ledger.failures.get((source.id, model.name))
    if failure and failure.kind in protocol.HANDLED and not job.retry_failed:
        unread = f"{source.size}:{source.mtime_ns}"
        if failure.key in [protocol.key_of(model.task.key, "", seen, source.part) for seen in (sha, unread) if seen]:
            return FAILED
    firsts = [ledger.records.get((source.id, model.name, output, 0)) for output in model.task.outputs]
    return STALE if any(record and look.present(record.path, None) for record in firsts) else TODO


def _fits(record: Record, model: ModelPlan, sha: str, source: Source, name: str, look: Look, strict: bool) -> bool:
    return (
        record.key == protocol.key_of(model.task.key, record.output, sha, source.part)
        and record.path == paths_of(model, name, record.window or 0)[record.output]
        and look.present(record.path, record.bytes)
        and (not strict or look.strict(record, model))
    )


def paths_of(model: ModelPlan, name: str, window: int = 0) -> dict[str, str]:
    """Return the path of each wanted output below the output folder; of its first window, where it has several."""
    declared = model.declared
    primary = next(iter(declared))
    paths = {}
    for output in model.task.outputs:
        cut = model.task.layout == "per-window" and declared[output].axes[0] == "window"
        own = store.name_window(name, window) if cut else name
        paths[output] = store.relative_path(model.name, output, output == primary, own, model.task.format)
    return paths


def _name_of(record: Record) -> str:
    name = os.path.splitext(record.path.partition("/")[2])[0]
    return name if record.window is None else name.removesuffix(store.name_window("", record.window))


def _size(model: ModelPlan, seconds: float) -> float:
    """Return the rough bytes of one item's arrays."""
    total = 0.0
    for output in map(model.declared.__getitem__, model.task.outputs):
        pooled = model.task.pooling.get(output.name, "none") != "none"
        frames = 1.0 if pooled or output.frame_rate is None else max(1.0, seconds * output.frame_rate)
        features = math.prod(size or 1 for size in output.shape)
        total += 128 + frames * features * (2 if model.task.dtype == "float16" else 4)
    return total


def summary(plan: Plan, runtime: str, left_out: tp.Sequence[LeftOut] = ()) -> str:
    """Return the plan as JSON, as it is kept in the run's folder: with its runtime, and what the scan left out."""
    models = [
        {
            "name": m.name,
            "extractor": m.spec.reference,
            "environment": m.environment,
            "key": m.task.key,
            "outputs": m.task.outputs,
            "items": len(plan.work(m)),
            "states": dict(collections.Counter(c.states[m.name] for c in plan.choices)),
        }
        for m in plan.models
    ]
    facts = {"models": models, "chosen": len(plan.chosen), "items": len(plan.choices), "runtime": runtime}
    facts["left_out"] = [vars(one) for one in left_out]
    return json.dumps(facts, indent=1) + "\n"
