"""The shards of one run that wait, and their environments, made ready side by side while others run."""

import concurrent.futures
import functools
import time
import typing as tp

from orchestrator.environments import definitions
from orchestrator.errors import ConsortError
from orchestrator.job.spec import JobSpec
from orchestrator.planning import shards
from orchestrator.planning.plan import Plan
from orchestrator.planning.shards import ShardFields
from orchestrator.running import attempts
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from orchestrator.running.runtimes.base import READY
from worker.protocol import Shard

_AT_ONCE = 2  # builds


class Waiting:
    """Shards in the order in which they are to start; a look at them asks no disk."""

    def __init__(self, job: JobSpec, placement: Placement, slots: int, progress: Progress) -> None:
        self._job = job
        self._placement = placement
        self._slots = slots
        self._progress = progress
        self._pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="build")
        self._builds: dict[tuple[str, str], concurrent.futures.Future[None]] = {}  # by environment and variant
        self._queue: list[tuple[float, Shard]] = []  # each with the time before which it must not start

    def __bool__(self) -> bool:
        return bool(self._queue)

    def build(self, environments: tp.Iterable[str], model: str = "") -> None:
        """Begin making environments ready for where they, or one of their models, run by now, unless they are."""
        runtime = self._placement.runtime
        for name in environments:
            environment, variant = definitions.find(name), self._placement.device(name, model)
            if (name, variant) in self._builds:
                continue
            if runtime.state(environment, variant) == READY:
                self._builds[name, variant] = concurrent.futures.Future()
                self._builds[name, variant].set_result(None)
            else:
                say = functools.partial(self._progress.stage, name)
                self._builds[name, variant] = self._pool.submit(runtime.build, environment, variant, say)

    def add(self, after: tp.Iterable[Shard]) -> None:
        """Put shards, whose environments are made ready or have begun to be, behind those that wait."""
        self._queue += [(0.0, shard) for shard in after]

    def add_first(self, before: tp.Iterable[Shard], seconds: float = 0.0) -> None:
        """Put shards before those that wait, to start in `seconds` at the earliest, where they can by now."""
        start = time.monotonic() + seconds
        self._queue[:0] = [(start, part) for shard in before for part in self._place(shard)]

    def cut(self, plan: Plan, run_id: str, gpus: int) -> None:
        """Add the work of a plan, which `gpus` workers may do on one at the same time."""
        shared = {m.environment: self._fields(m.environment) for m in plan.models}
        self.add(shards.cut(plan, run_id, self._slots, shared, gpus))

    def move(self) -> None:
        """Let all run where their environments or models can by now, as on another device."""
        self._queue = [(start, part) for start, shard in self._queue for part in self._place(shard)]

    def _place(self, shard: Shard) -> list[Shard]:
        """Return a shard as those that have a GPU for all their models, or none, which a job may not want at all."""
        placed, name = self._placement, shard.environment
        if not placed.refused:
            return [shard]
        if shard.device == "cuda":
            parts = attempts.split(shard, placed.alone(name, [task.name for task in shard.tasks]))
            return [self._again(part, m) for part, m in parts if placed.gpus(name, m) or not placed.grant.strict]
        if shard.variant == "cuda" and placed.device(name) == "cpu":  # where it may be what could not be built
            return [self._again(shard)]
        return [shard]

    def _again(self, shard: Shard, model: str = "") -> Shard:
        self.build([shard.environment], model)
        return shards.again(shard, self._fields(shard.environment, model))

    def _fields(self, environment: str, model: str = "") -> ShardFields:
        device, flags = self._placement.device(environment, model), self._placement.flags(environment, model)
        return shards.fields(self._job, environment, device, flags, self._slots)

    def take(
        self, room: tp.Mapping[str, bool], serves: tp.Callable[[Shard], bool]
    ) -> tuple[Shard, ConsortError | None] | None:
        """Take out the first shard that can start now, with the reason where its environment could not be made.

        `room` says by device whether there is a place for one more, and `serves` whether a GPU is free for a shard.
        """
        now = time.monotonic()
        for index, (start, shard) in enumerate(self._queue):
            build = self._builds[shard.environment, shard.variant]
            free = room[shard.device] and (shard.device == "cpu" or serves(shard))
            if free and start <= now and build.done():
                del self._queue[index]
                try:
                    build.result()
                except ConsortError as error:
                    return shard, error
                return shard, None
        return None

    def clear(self) -> None:
        self._queue.clear()

    def close(self, wait: bool) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
