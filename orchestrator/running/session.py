"""One run under way: environments are made ready, shards submitted, and their ends judged."""

import collections
import dataclasses
import time
import typing as tp

from orchestrator.environments import definitions
from orchestrator.errors import ConsortError
from orchestrator.planning import shards
from orchestrator.planning.survey import Survey
from orchestrator.running import attempts
from orchestrator.running.attempts import Attempt, Judge, Verdict
from orchestrator.running.builds import Builds
from orchestrator.running.engines.base import Ended, Engine, Job
from orchestrator.running.gpus import Decision, Drop, Gpus
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from orchestrator.running.report import Report
from orchestrator.running.runtimes.base import own_paths
from orchestrator.running.weights import FetchStopped, Supplies
from worker import protocol
from worker.protocol import Event, Item, Shard, Task

_WAITS = (0.0, 2.0, 10.0)  # seconds before the first, second and third try of a shard that could not be started
_PAUSE = 0.05  # seconds between two looks at the workers


class Session:
    """One run under way."""

    def __init__(
        self, surveyed: Survey, placement: Placement, engine: Engine, run_id: str, report: Report, progress: Progress
    ) -> None:
        self._surveyed = surveyed
        self._placement = placement
        self._engine = engine
        self._run_id = run_id
        self._report = report
        self._progress = progress
        self._runtime = placement.runtime
        self._builds = Builds(self._runtime, progress)
        self._gpus = Gpus(placement)
        self._host = protocol.Channel(str(surveyed.output.records / f"{run_id}-host.jsonl"))
        self._judge = Judge(self._failure_key)
        self._queue: collections.deque[Shard] = collections.deque()
        self._attempts: dict[str, Attempt] = {}
        self._not_before: dict[str, float] = {}  # shards that wait until the engine has come back
        self.stops = 0
        self.unclean = False  # a worker ended in a way that may have left half-written files

    def start(self, offline: bool) -> None:
        """Begin building environments, fetch weights meanwhile, and cut the shards."""
        self._attempts.update(
            {job.name: Attempt(job.shard, job.gpus, self._runtime.way) for job in self._engine.attach()}
        )
        work = [m for m in self._surveyed.plan.models if self._surveyed.plan.work(m)]
        for name in {m.environment: None for m in work}:
            self._builds.begin(definitions.find(name), self._placement.device(name))
        supplies = Supplies(self._surveyed.weights, self._progress, offline, lambda: self.stops > 0)
        try:
            available = supplies.fetch_all(work, self._drop, self._refuses)
            supplies.fetch_ffmpeg()
        except FetchStopped:
            return
        shared = {m.environment: self._fields(m.environment) for m in available}
        ready = dataclasses.replace(self._surveyed.plan, models=available)
        self.add(shards.cut(ready, self._run_id, self._engine.slots, shared, self._gpus.count))

    def add(self, waiting: tp.Iterable[Shard]) -> None:
        """Put shards behind those that wait; their environments have begun to be made ready."""
        self._queue.extend(waiting)

    def loop(self) -> None:
        """Submit, watch and judge until nothing is left."""
        while self._queue or self._engine.busy():
            if self.stops:
                self._queue.clear()
                self._engine.cancel(kill=self.stops > 1)  # once more: a signal may have come during a submission
            while not self.stops and (shard := self._next()) is not None:
                self._submit(shard)
            for job, happening in self._engine.poll():
                if isinstance(happening, Ended):
                    self._end(self._attempts.pop(job.name), happening)
                else:
                    self._attempts[job.name].note(happening)
                    self._report.add(job.shard.environment, happening)
            self._progress.update(self._report)
            time.sleep(_PAUSE)
        self._report.interrupted = self.stops > 0

    def stop(self) -> None:
        """Ask the workers to end; the second time, end them."""
        self.stops += 1
        if self.stops == 1:
            self._progress.say("stopping: finished arrays are kept, run again to go on (Ctrl-C again to kill)")
        self._runtime.cancel()
        self._engine.cancel(kill=self.stops > 1)

    def close(self) -> None:
        """Let go of threads and files, and of workers that an error here has left running."""
        self._engine.close()
        self._builds.close(wait=not self.stops)
        self._host.close()

    def _refuses(self, task: Task) -> str | None:
        own = own_paths(self._surveyed.job.plugins, [task])
        return next((why for path in own if (why := self._runtime.refuses(path))), None)

    def _fields(self, environment: str, model: str = "") -> shards.ShardFields:
        found = definitions.find(environment)
        return shards.fields(self._surveyed.job, found, self._placement, self._engine.slots, model)

    def _next(self) -> Shard | None:
        """Return the first shard that can start now; drop those whose environment is not to be had."""
        now = time.monotonic()
        room = {gpu: self._engine.takes(gpu) and (self._gpus.free or not gpu) for gpu in (False, True)}
        if not any(room.values()):
            return None
        for shard in list(self._queue):
            late = self._not_before.get(f"{shard.id}.{shard.attempt}", 0.0) > now
            if late or not room[shard.device == "cuda"] or not self._builds.done(shard):
                continue
            if shard.device == "cuda" and not self._gpus.serves(shard):
                continue
            self._queue.remove(shard)
            try:
                self._builds.require(shard)
            except ConsortError as error:
                if shard.device == "cuda" and not self._gpus.strict:
                    self._queue.appendleft(shard)
                    self._obey(self._gpus.lose_all(shard.environment, str(error)))
                    return None
                for task in shard.tasks:
                    self._drop(task.name, str(error))
                continue
            return shard
        return None

    def _submit(self, shard: Shard) -> None:
        shard = self._without_dropped(shard)
        if shard.items:
            gpus = self._gpus.take(shard) if shard.device == "cuda" else ()
            job = Job(shard, gpus, self._surveyed.job.memory_bytes)
            self._attempts[job.name] = Attempt(shard, gpus, self._runtime.way)
            self._engine.submit([job])

    def _end(self, attempt: Attempt, ended: Ended) -> None:
        self._gpus.give_back(attempt.gpus)
        self.unclean = self.unclean or not ended.ok
        for model, why in attempt.dropped.items():
            self._drop(model, f"cannot load: {why}")
        if attempt.trouble or ended.code == protocol.EXIT_OUTPUT:
            self._report.trouble = attempt.trouble or "cannot be written"
            self._queue.clear()
            self._engine.cancel()
        elif self.stops or self._report.trouble:
            return
        elif fault := self._gpus.fault(attempt, ended):
            self._queue.appendleft(attempts.rerun(attempt.shard, attempt.left()))
            self._obey(self._gpus.lose(attempt, fault, ended.problem is not None, self._runtime))
        else:
            self._follow(attempt, ended, self._judge.end(attempt, ended))

    def _obey(self, decision: Decision) -> None:
        """Do what the loss of a GPU means for the shards that wait."""
        if isinstance(decision, Drop):
            for model in self._surveyed.plan.models:
                without = self._placement.device(model.environment, model.name) == "cpu"
                if without and model.extractor.uses_gpu() and self._surveyed.plan.work(model):
                    self._drop(model.name, decision.why)
        elif decision.text:
            self._progress.say(decision.text)
        self._queue = collections.deque(self._place(self._queue))

    def _place(self, waiting: tp.Iterable[Shard]) -> list[Shard]:
        """Return shards as they can run by now, with the environments that they need begun."""
        possible = [shard for one in waiting if (shard := self._without_dropped(one)).items]
        placed = self._gpus.place(possible, self._fields)
        for name, variant in {(shard.environment, shard.variant): None for shard in placed}:
            self._builds.begin(definitions.find(name), variant)
        return placed

    def _without_dropped(self, shard: Shard) -> Shard:
        return attempts.without(shard, {name for name, count in self._report.models.items() if count.unavailable})

    def _follow(self, attempt: Attempt, ended: Ended, verdict: Verdict) -> None:
        environment = attempt.shard.environment
        if not ended.ok and (verdict.shards or verdict.failures):
            self._progress.say(f"{environment}: a worker ended ({attempts.words(ended)}); {verdict.consequence}")
        for failure in verdict.failures:
            self._host.emit(Event("failed", item=failure.item, model=failure.model, failure=failure), durable=True)
            self._report.fail(failure)
        for model, why in verdict.dropped.items():
            self._drop(model, f"cannot load: {why}")
        if verdict.lost:
            self._report.lost.append(f"{environment}: {verdict.lost}")
            self._progress.say(f"{environment}: {verdict.lost}")
        again = self._place(verdict.shards)
        if ended.problem:  # as when the engine is started anew
            for shard in again:
                wait = _WAITS[min(shard.attempt, len(_WAITS)) - 1]
                self._not_before[f"{shard.id}.{shard.attempt}"] = time.monotonic() + wait
        self._queue.extendleft(reversed(again))

    def _drop(self, model: str, why: str) -> None:
        if self._report.unavailable(model, why if why.startswith(f"{model}:") else f"{model}: {why}"):
            self._progress.say(self._report.models[model].unavailable or why)

    def _failure_key(self, item: Item, model: str) -> str:
        task = next(m.task for m in self._surveyed.plan.models if m.name == model)
        return protocol.key_of(task.key, "", f"{item.size}:{item.mtime_ns}")
