"""One run under way: environments are made ready, shards launched, and their ends judged."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import shutil
import time
import typing as tp

from orchestrator import files
from orchestrator.environments import definitions, devices
from orchestrator.environments.definitions import Environment
from orchestrator.errors import ConsortError, EnvironmentUnavailable
from orchestrator.output.folder import RunDir
from orchestrator.planning import plan
from orchestrator.planning.plan import ModelPlan
from orchestrator.planning.preparation import Prepared
from orchestrator.running import attempts
from orchestrator.running.attempts import Attempt, Judge, Verdict
from orchestrator.running.engines.base import Ended, Engine, Launch
from orchestrator.running.engines.local import LocalEngine, default_slots
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from orchestrator.running.report import Report
from orchestrator.running.runtimes.base import Mounts, Resources
from orchestrator.running.weights import Stopped, Supplies
from worker import protocol, schema
from worker.extractor import PROVENANCE
from worker.protocol import Event, Failure, Item, Shard, Task
from worker.work import memory

_DECODING = 0.8  # of an item's time limit: the worker ends a decode itself, before it is taken for hung
_WAITS = (0.0, 2.0, 10.0)  # seconds before the first, second and third try of a shard that could not be started
_PAUSE = 0.05  # seconds between two looks at the workers


class Session:
    """One run under way."""

    def __init__(
        self, prepared: Prepared, placement: Placement, run: RunDir, report: Report, progress: Progress
    ) -> None:
        self._prepared = prepared
        self._run = run
        self._report = report
        self._progress = progress
        self._queue: collections.deque[Shard] = collections.deque()
        self._attempts: dict[str, Attempt] = {}
        self._placement = placement
        self._runtime = placement.runtime
        self._runtime.log = run.logs
        self._gpus = [gpu.uuid for gpu in placement.grant.gpus]  # free ones; a GPU serves one worker at a time
        self._builds: dict[tuple[str, str], concurrent.futures.Future[None]] = {}  # by environment and variant
        self._pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="build")
        self._host = protocol.Channel(str(prepared.output.records / f"{run.id}-host.jsonl"))
        self._judge = Judge(self._failure_key)
        self._ffmpeg = ""
        self._broken: collections.Counter[str] = collections.Counter()  # how often each GPU failed in the middle
        self._not_before: dict[str, float] = {}  # shards that wait until the engine has come back
        self._refusal: str | None = None  # what the engine first said about GPUs
        self.stops = 0
        self.unclean = False  # a worker ended in a way that may have left half-written files
        limit = prepared.job.timeout_per_item
        slots = prepared.job.workers or default_slots()
        self._engine: Engine = LocalEngine(slots, limit, 0.0) if limit else LocalEngine(slots)

    def start(self, offline: bool) -> None:
        """Begin building environments, fetch weights meanwhile, and cut the shards."""
        work = [m for m in self._prepared.plan.models if self._prepared.plan.work(m)]
        for name in sorted({m.environment for m in work}):
            self._build(definitions.find(name))
        supplies = Supplies(self._prepared.weights, self._progress, offline, lambda: self.stops > 0)
        try:
            available = self._fetch(supplies, work)
            self._ffmpeg = supplies.fetch_ffmpeg()
        except Stopped:
            return
        fields = {m.environment: self._fields(definitions.find(m.environment)) for m in available}
        ready = dataclasses.replace(self._prepared.plan, models=available)
        self._queue.extend(plan.shards(ready, self._run.id, self._engine.slots, fields, len(self._gpus)))

    def loop(self) -> None:
        """Launch, watch and judge until nothing is left."""
        while self._queue or self._engine.busy():
            if self.stops:
                self._queue.clear()
                self._engine.stop(kill=self.stops > 1)  # once more: a signal may have come during a launch
            while not self.stops and (shard := self._next()) is not None:
                self._launch(shard)
            for shard, happening in self._engine.poll():
                if isinstance(happening, Ended):
                    self._end(self._attempts.pop(_name(shard)), happening)
                else:
                    self._attempts[_name(shard)].note(happening)
                    self._report.add(shard.environment, happening)
            self._progress.update(self._report)
            time.sleep(_PAUSE)
        self._report.interrupted = self.stops > 0

    def stop(self) -> None:
        """Ask the workers to end; the second time, end them."""
        self.stops += 1
        if self.stops == 1:
            self._progress.say("stopping: finished arrays are kept, run again to go on (Ctrl-C again to kill)")
        self._runtime.cancel()
        self._engine.stop(kill=self.stops > 1)

    def close(self) -> None:
        """Let go of threads and files, and of workers that an error here has left running."""
        self._engine.stop(kill=True)
        self._runtime.close()
        self._pool.shutdown(wait=not self.stops, cancel_futures=True)
        self._host.close()

    def _build(self, environment: Environment) -> None:
        """Begin making the variant of an environment ready that its device needs."""
        variant = self._placement.variant(environment)
        if self._runtime.ready(environment, variant):
            self._builds[environment.name, variant] = _done()
        elif (environment.name, variant) not in self._builds:
            say = functools.partial(self._progress.stage, environment.name)
            self._builds[environment.name, variant] = self._pool.submit(
                self._runtime.prepare, environment, variant, say
            )

    def _fetch(self, supplies: Supplies, work: list[ModelPlan]) -> list[ModelPlan]:
        """Return the models whose weights are here; the others are left out, with the reason."""
        available = []
        for model in work:
            try:
                fetched = supplies.fetch(model)
            except EnvironmentUnavailable as error:
                self._drop(model.name, str(error))
                continue
            refusals = [why for path in self._own([fetched.task]) if (why := self._runtime.refuses(path))]
            if refusals:
                self._drop(model.name, refusals[0])
            else:
                available.append(fetched)
        return available

    def _own(self, tasks: tp.Iterable[Task]) -> list[str]:
        """Return what tasks name of the user's own: folders of plugins, and weights with what is said of them."""
        paths = dict.fromkeys(self._prepared.job.plugins)
        for path in [path for task in tasks for path in task.files.values() if os.path.isabs(path)]:
            beside = os.path.join(os.path.dirname(path), PROVENANCE)
            paths.update(dict.fromkeys([path, beside] if os.path.exists(beside) else [path]))
        return list(paths)

    def _fields(self, environment: Environment) -> dict[str, tp.Any]:
        job = self._prepared.job
        free = memory.available()
        return {
            "device": self._placement.device(environment.name),
            "lock": environment.lock_sha256(self._placement.variant(environment)),
            "flags": self._placement.flags(environment.name),
            "worker": environment.worker_sha256(),
            "plugins": job.plugins,
            # without a limit the workers share what is free, as each of them alone would take it all
            "memory": job.memory_bytes or (free // self._engine.slots if free else None),
            "timeout": _DECODING * (job.timeout_per_item or 600.0),
        }

    def _next(self) -> Shard | None:
        """Return the first shard that can start now; drop those whose environment is not to be had."""
        for shard in list(self._queue):
            build = self._builds[shard.environment, _variant(shard)]
            if time.monotonic() < self._not_before.get(_name(shard), 0.0):
                continue
            if not build.done() or not (self._gpus if shard.device == "cuda" else self._engine.free()):
                continue
            self._queue.remove(shard)
            try:
                build.result()
            except ConsortError as error:
                if shard.device == "cuda" and not self._placement.grant.strict:
                    self._queue.appendleft(shard)
                    self._give_up_gpus(str(error))
                    return None
                for task in shard.tasks:
                    self._drop(task.name, str(error))
                continue
            return shard
        return None

    def _launch(self, shard: Shard) -> None:
        gone = {name for name, count in self._report.models.items() if count.unavailable}
        shard = _without(shard, gone)
        if not shard.items:
            return
        output, name = self._prepared.output, _name(shard)
        self._refuse_moved()
        scratch = output.scratch / name
        files.make_folder(scratch, new=True)
        file = self._run.shards / f"{name}.json"
        files.write_new(file, protocol.canonical(schema.dump(shard)))
        events = output.records / f"{name}.jsonl"
        log = self._run.log(name)
        for new in (events, log):
            files.write_new(new)
        weights = str(self._prepared.weights.root)
        mounts = Mounts(
            self._prepared.audio.root,
            str(output.root),
            weights,
            str(scratch),
            self._ffmpeg,
            tuple(self._own(shard.tasks)),
        )
        gpus = (self._gpus.pop(0),) if shard.device == "cuda" else ()
        resources = Resources(gpus, self._prepared.job.memory_bytes)
        command = self._runtime.command(shard, _variant(shard), mounts, file, events, resources)
        self._attempts[name] = Attempt(shard, gpus, self._runtime.way)
        self._engine.launch(Launch(shard, command, events, log, gpus))

    def _refuse_moved(self) -> None:
        """A worker may have changed what it writes into: nothing is made or removed through a link of its."""
        self._prepared.output.refuse_moved(self._run.root, self._run.shards, self._run.logs)

    def _end(self, attempt: Attempt, ended: Ended) -> None:
        self._refuse_moved()
        shutil.rmtree(self._prepared.output.scratch / _name(attempt.shard), ignore_errors=True)
        cause = self._runtime.end(_name(attempt.shard), ended.code, ended.log)
        ended = dataclasses.replace(ended, out_of_memory=cause.out_of_memory, problem=cause.problem)
        self._gpus.extend(attempt.gpus)
        self.unclean = self.unclean or not ended.ok
        for model, why in attempt.dropped.items():
            self._drop(model, f"cannot load: {why}")
        if attempt.trouble or ended.code == protocol.EXIT_OUTPUT:
            self._report.trouble = attempt.trouble or "cannot be written"
            self._queue.clear()
            self._engine.stop()
        elif self.stops or self._report.trouble:
            return
        elif attempt.gpus and (lack := self._lack(attempt, ended)):
            self._lose_gpu(attempt, lack, refused=ended.problem is not None)
        else:
            self._follow(attempt, ended, self._judge.end(attempt, ended))

    def _lack(self, attempt: Attempt, ended: Ended) -> str | None:
        """Return why an attempt's GPU is of no use, if that is what ended it.

        One that fails in the middle of the work gets a second chance: it may have been the item.
        """
        if attempt.broken:
            self._broken.update(attempt.gpus)
            return attempt.broken if self._broken[attempt.gpus[0]] > 1 else None
        return attempt.device or devices.problem(ended.problem)

    def _lose_gpu(self, attempt: Attempt, why: str, refused: bool) -> None:
        """Ask for the GPU in another way, go on with the others, with the CPU, or not at all: as the job allows.

        Args:
            attempt: which was granted it.
            why: it has not got it.
            refused: by the engine, which may know GPUs by another name.
        """
        self._queue.appendleft(attempts.rerun(attempt.shard, attempt.left()))
        if refused and (attempt.way != self._runtime.way or self._runtime.another_way()):
            self._refusal = self._refusal or why
            return
        why = self._refusal or why  # the first word is the one about the usual way
        (gpu,) = attempt.gpus
        self._gpus.remove(gpu)
        if self._placement.give_up(gpu, f"GPU {gpu}: {why}"):
            self._progress.say(f"GPU {gpu} is left out: {why}")
        elif self._placement.grant.strict:
            self._drop_gpu_models(f"GPU {gpu}: {why}; {devices.MEND}")
        else:
            self._progress.say(f"NO GPU: {why}; goes on with the CPU ({devices.MEND})")
            self._move_to_cpu()

    def _give_up_gpus(self, why: str) -> None:
        """Go on with the CPU, whatever GPUs there are."""
        for gpu in self._placement.grant.gpus:
            self._placement.give_up(gpu.uuid, why)
        self._progress.say(f"NO GPU: {why}; goes on with the CPU")
        self._move_to_cpu()

    def _drop_gpu_models(self, why: str) -> None:
        for model in self._prepared.plan.models:
            if model.extractor.uses_gpu() and self._prepared.plan.work(model):
                self._drop(model.name, why)
        self._move_to_cpu()  # the models beside them, which have been waiting for the same worker

    def _move_to_cpu(self) -> None:
        for shard in list(self._queue):
            environment = definitions.find(shard.environment)
            self._build(environment)
            self._queue[self._queue.index(shard)] = dataclasses.replace(shard, **self._fields(environment))

    def _follow(self, attempt: Attempt, ended: Ended, verdict: Verdict) -> None:
        environment = attempt.shard.environment
        if not ended.ok and (verdict.shards or verdict.failures):
            left = sum(len(shard.items) for shard in verdict.shards)
            given_up = ", ".join(sorted({failure.item for failure in verdict.failures}))
            then = f"gives up on {given_up}" if given_up else f"goes on with {left} items"
            self._progress.say(f"{environment}: a worker ended ({attempts.words(ended)}); {then}")
        for failure in verdict.failures:
            self._fail(failure)
        for model, why in verdict.dropped.items():
            self._drop(model, f"cannot load: {why}")
        if verdict.lost:
            self._report.lost.append(f"{environment}: {verdict.lost}")
            self._progress.say(f"{environment}: {verdict.lost}")
        if ended.problem:  # as when the engine is started anew
            for shard in verdict.shards:
                self._not_before[_name(shard)] = time.monotonic() + _WAITS[min(shard.attempt, len(_WAITS)) - 1]
        self._queue.extendleft(reversed(verdict.shards))

    def _fail(self, failure: Failure) -> None:
        self._host.emit(Event("failed", item=failure.item, model=failure.model, failure=failure), durable=True)
        self._report.fail(failure)

    def _drop(self, model: str, why: str) -> None:
        if self._report.unavailable(model, why if why.startswith(f"{model}:") else f"{model}: {why}"):
            self._progress.say(self._report.models[model].unavailable or why)

    def _failure_key(self, item: Item, model: str) -> str:
        task = next(m.task for m in self._prepared.plan.models if m.name == model)
        return protocol.key_of(task.key, "", f"{item.size}:{item.mtime_ns}")


def _name(shard: Shard) -> str:
    return f"{shard.id}.{shard.attempt}"


def _variant(shard: Shard) -> str:
    """Return which variant of its environment a shard was planned for."""
    environment = definitions.find(shard.environment)
    return next((v for v in environment.spec.locks if environment.lock_sha256(v) == shard.lock), "cpu")


def _without(shard: Shard, models: set[str]) -> Shard:
    """Return the shard without models that turned out not to run."""
    if not models:
        return shard
    items = [dataclasses.replace(i, tasks=[t for t in i.tasks if t not in models]) for i in shard.items]
    tasks = [task for task in shard.tasks if task.name not in models]
    return dataclasses.replace(shard, items=[item for item in items if item.tasks], tasks=tasks)


def _done() -> "concurrent.futures.Future[None]":
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_result(None)
    return future
