"""How far an attempt came, and what follows from its end: nothing, a rerun, or a quarantine."""

import collections
import dataclasses
import pathlib
import typing as tp

from orchestrator import files
from orchestrator.running.engines.base import Ended
from worker import protocol
from worker.protocol import Event, Failure, Item, Shard

_STRIKES = 2  # ends of a worker that an (item, model) may cause before it is left out
_ORDERLY = (protocol.EXIT_PERMANENT, protocol.EXIT_NO_MODEL, protocol.EXIT_OUTPUT, protocol.EXIT_AGAIN)
_TAIL = 65536  # bytes of a log in which its last line begins
_RESTARTS = 3  # attempts at the same items by workers that end for no visible reason


@dataclasses.dataclass(eq=False)
class Attempt:
    """One shard under way: what it has accounted for, and where it stands."""

    shard: Shard
    gpus: tuple[str, ...] = ()  # UUIDs of those that it was granted
    way: str = ""  # how they were asked for
    loading: str | None = None  # the model that has begun to load, and not ended
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)  # models that could not load, with the reason
    trouble: str | None = None  # why the output folder cannot be used
    device: str | None = None  # why the worker has not got its GPU, or could not load a model there
    unloadable: str = ""  # that model; "": it is all the same to any model of its environment
    tried: bool = False  # the worker was done with its GPU, and came to a model
    broken: str | None = None  # why its GPU was of no use any more in the middle of the work
    _accounted: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    _decoding: list[str] = dataclasses.field(default_factory=list)
    _running: tuple[str, str] | None = None

    def note(self, event: Event) -> None:
        """Take in one event of the worker."""
        model, words = event.model or "", event.message or "it did not say why"
        match event.kind:
            case "device_missing":
                self.device = words
            case "device_lost" if event.model:
                self.device, self.unloadable, self.loading = words, model, None
            case "device_lost":
                self.broken = words
            case "output_lost":
                self.trouble, self.loading = words, None
            case "loading":
                self.loading, self.tried = model, True
            case "loaded":
                self.loading = None
            case "model_refused":
                self.dropped[model], self.loading = words, None
            case "opened" | "decoded" | "wrote" | "failed":
                self._follow(event.kind, event.item or "", model)
            case "hello" | "batch_reduced" | "heartbeat" | "finished" | "progress" | "note" | "fitted":
                pass
            case _:
                protocol.refuse_kind(event.kind)

    def _follow(self, kind: str, item: str, model: str) -> None:
        """Follow an item through decoding and its models."""
        if not item:
            return
        if kind == "opened" and model:
            self._running = (item, model)
        elif kind == "opened":
            self._decoding.append(item)
        else:
            self._decoding = [other for other in self._decoding if other != item]
            self.loading = None if kind == "failed" and self.loading == model else self.loading  # by its weights
        if kind in ("wrote", "failed"):
            self._accounted.add((item, model))
            self._running = None if self._running == (item, model) else self._running

    def left(self) -> list[Item]:
        """Return the items with the models that are not accounted for."""
        return _with(self.shard.items, lambda item, t: (item, t) not in self._accounted and t not in self.dropped)

    def crashed_on_gpu(self, ended: Ended) -> str | None:
        """Return how the worker ended, where it did so while it tried its GPU or loaded a model there."""
        orderly = ended.ok or ended.code in _ORDERLY or ended.problem or memory(ended)
        if orderly or (self.tried and self.loading is None):
            return None
        self.unloadable = self.loading or ""
        return f"the worker ended while it {'loaded a model' if self.tried else 'tried it'} ({words(ended)})"

    def suspects(self) -> set[tuple[str, str]]:
        """Return what the worker was busy with: (item, model), or (item, "") while decoding."""
        return {(item, "") for item in self._decoding} | ({self._running} if self._running else set())


@dataclasses.dataclass
class Verdict:
    """What to do after an attempt."""

    shards: list[Shard] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    lost: str | None = None

    @property
    def consequence(self) -> str:
        """What follows, in words."""
        given_up = ", ".join(sorted({failure.item for failure in self.failures}))
        left = sum(len(shard.items) for shard in self.shards)
        return f"gives up on {given_up}" if given_up else f"goes on with {left} items"


class Judge:
    """Counts the strikes of a run, and decides."""

    def __init__(self) -> None:
        self._strikes: collections.Counter[tuple[str, str]] = collections.Counter()
        self._restarts: collections.Counter[tuple[tuple[str, ...], ...]] = collections.Counter()

    def end(self, attempt: Attempt, ended: Ended) -> Verdict:
        """Return what follows from the end of an attempt that was not asked to end."""
        verdict = Verdict(dropped=dict(attempt.dropped))
        left = attempt.left()
        if not left:
            return verdict
        if ended.ok:
            return dataclasses.replace(verdict, lost=f"worker left {len(left)} items out; see {ended.log}")
        if ended.code == protocol.EXIT_PERMANENT:
            why = f"worker could not start: {_last_words(ended.log)}; see {ended.log}"
            return dataclasses.replace(verdict, lost=why)
        if ended.code == protocol.EXIT_AGAIN or ended.problem:  # which no item has caused
            return self._restart(attempt, left, ended, verdict)
        loading = attempt.loading
        if loading is not None and memory(ended) and not self._struck((("", loading),)):
            return self._restart(attempt, left, ended, verdict)  # somebody's kill, or memory that others held
        if loading is not None:
            verdict.dropped[loading] = f"ended its process while loading ({words(ended)}); see {ended.log}"
            left = _with(left, lambda _, task: task != loading)
        suspects = attempt.suspects()
        if not suspects and loading is None:
            return self._restart(attempt, left, ended, verdict)
        if not (memory(ended) and _can_shrink(attempt.shard, suspects)):
            self._struck(suspects)
        verdict.failures = self._quarantined(attempt.shard, left, ended)
        given_up = {(failure.item, failure.model) for failure in verdict.failures}
        left = _with(left, lambda *pair: pair not in given_up)
        alone = {item for item, _ in suspects}
        groups = [[item for item in left if item.id not in alone], *([item] for item in left if item.id in alone)]
        small = _smaller(attempt.shard) if memory(ended) else attempt.shard
        verdict.shards = [rerun(small, part, n) for n, part in enumerate(filter(None, groups))]
        return verdict

    def _struck(self, suspects: tp.Collection[tuple[str, str]]) -> bool:
        """Count a strike for each, and return whether any of them had one."""
        had = any(self._strikes[suspect] for suspect in suspects)
        self._strikes.update(suspects)
        return had

    def _restart(self, attempt: Attempt, left: list[Item], ended: Ended, verdict: Verdict) -> Verdict:
        """An end between two items is nobody's fault; one that repeats without progress is a broken environment."""
        same = tuple((item.id, *item.tasks) for item in left)
        self._restarts[same] += 1
        if self._restarts[same] >= _RESTARTS:
            verdict.lost = f"worker ended again and again ({words(ended)}); see {ended.log}"
        else:
            verdict.shards = [rerun(attempt.shard, left, 0)]
        return verdict

    def _quarantined(self, shard: Shard, left: list[Item], ended: Ended) -> list[Failure]:
        """Return the failures of those that have ended their process too often."""
        kind = "timeout" if ended.hung else "memory" if memory(ended) else "quarantine"
        message = f"ended its process {_STRIKES} times ({words(ended)}); see {ended.log.name}"
        keys = {task.name: task.key for task in shard.tasks}
        return [
            Failure(i.id, t, kind, message, protocol.key_of(keys[t], "", f"{i.size}:{i.mtime_ns}"))  # may be unread
            for i in left
            for t in i.tasks
            if max(self._strikes[i.id, t], self._strikes[i.id, ""]) >= _STRIKES
        ]


def _last_words(log: pathlib.Path) -> str:
    """Return the last line of a log, where a worker that refuses its shard says why."""
    try:
        lines = files.read_end(log, _TAIL).strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("worker: cannot start: ") if lines else "it said nothing"


def words(ended: Ended) -> str:
    """Return how a worker ended, in words."""
    if ended.problem:
        return ended.problem
    if ended.out_of_memory:
        return f"out of memory: it may take {ended.limit}" if ended.limit else "out of memory"
    if ended.hung:
        return "no progress within the time limit"
    if ended.code < 0:
        return f"killed by signal {-ended.code}"
    return f"exit code {ended.code}"


def memory(ended: Ended) -> bool:
    """Return whether the system seems to have killed the worker for its memory."""
    return not ended.hung and (ended.out_of_memory or ended.code in (-9, 137))


def rerun(shard: Shard, items: list[Item], number: int = 0) -> Shard:
    """Return the shard of the next attempt at some of its items; `number` tells several of them apart."""
    names = {task for item in items for task in item.tasks}
    return dataclasses.replace(
        shard,
        # the attempt is in it: children of two attempts of one shard must not share their files
        id=f"{shard.id}.{shard.attempt}-{number}" if number else shard.id,
        attempt=shard.attempt + 1,
        items=items,
        tasks=[task for task in shard.tasks if task.name in names],
    )


def without(shard: Shard, models: set[str]) -> Shard:
    """Return the shard without models that turned out not to run."""
    tasks = [task for task in shard.tasks if task.name not in models]
    return dataclasses.replace(shard, items=_with(shard.items, lambda _, task: task not in models), tasks=tasks)


def split(shard: Shard, alone: list[str]) -> list[tuple[Shard, str]]:
    """Return a shard as one for each of some models, with its name, and one for the others, with ""."""
    if not alone:
        return [(shard, "")]
    every = {task.name for task in shard.tasks}
    parts = [(without(shard, every - {name}), name) for name in alone] + [(without(shard, set(alone)), "")]
    return [
        (dataclasses.replace(part, id=f"{part.id}-{name}" if name and part.tasks != shard.tasks else part.id), name)
        for part, name in parts
        if part.items
    ]


def _with(items: list[Item], wanted: tp.Callable[[str, str], bool]) -> list[Item]:
    """Return the items with the models that are wanted of (item, model); one without any is left out."""
    found = [dataclasses.replace(item, tasks=[t for t in item.tasks if wanted(item.id, t)]) for item in items]
    return [item for item in found if item.tasks]


def _smaller(shard: Shard) -> Shard:
    """Halve the batches of a shard that ran out of memory; the next time leave them no more to give."""
    half = [t.batch_size // 2 if t.batch_size and shard.attempt == 1 else 1 for t in shard.tasks]
    tasks = [dataclasses.replace(t, batch_size=max(1, size)) for t, size in zip(shard.tasks, half, strict=True)]
    return dataclasses.replace(shard, tasks=tasks)


def _can_shrink(shard: Shard, suspects: set[tuple[str, str]]) -> bool:
    """Return whether a model that was running has batches that the job made larger than they need be."""
    running = {task for _, task in suspects}
    return any(task.name in running and (task.batch_size or 1) > 1 for task in shard.tasks)
