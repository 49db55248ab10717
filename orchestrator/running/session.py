"""One run under way: environments are made ready, shards submitted, and their ends judged."""

import dataclasses
import time

from orchestrator.planning.survey import Survey
from orchestrator.running import attempts
from orchestrator.running.attempts import Attempt, Judge, Verdict
from orchestrator.running.engines.base import Ended, Engine, Job
from orchestrator.running.gpus import Decision, Gpus
from orchestrator.running.outage import Outage
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from orchestrator.running.report import Report
from orchestrator.running.waiting import Waiting
from orchestrator.running.weights import FetchStopped, Supplies
from worker import protocol
from worker.protocol import Event, Shard

_WAITS = (2.0, 10.0)  # seconds before the second and third try of a shard that could not be started
_PAUSE = 0.05  # seconds between two looks at the workers


class Session:
    """One run under way."""

    def __init__(
        self, surveyed: Survey, placement: Placement, engine: Engine, run_id: str, report: Report, progress: Progress
    ) -> None:
        self._job, self._plan, self._weights = surveyed.job, surveyed.plan, surveyed.weights
        self._placement = placement
        self._runtime = placement.runtime
        self._engine = engine
        self._run_id = run_id
        self._report = report
        self._progress = progress
        self._gpus = Gpus(placement)
        self._host = protocol.Channel(str(surveyed.output.records / f"{run_id}-host.jsonl"))
        self._judge = Judge()
        self._outage = Outage(self._runtime, progress)
        self._output = surveyed.output.root
        self._attempts: dict[str, Attempt] = {}
        self.waiting = Waiting(self._job, placement, engine.slots, progress)
        self.stops = 0
        self.unclean = False  # a worker ended in a way that may have left half-written files

    def start(self, offline: bool) -> None:
        """Begin building environments, fetch weights meanwhile, and cut the shards."""
        self._attempts = {job.name: Attempt(job.shard, job.gpus, self._runtime.way) for job in self._engine.attach()}
        work = [m for m in self._plan.models if self._plan.work(m)]
        self.waiting.build(m.environment for m in work)
        supplies = Supplies(self._weights, self._progress, offline, lambda: self.stops > 0)
        try:
            found = supplies.fetch_all(work, self._drop, lambda t: self._runtime.refusal(self._job.plugins, [t]))
            supplies.fetch_ffmpeg()
        except FetchStopped:
            return
        self.waiting.cut(dataclasses.replace(self._plan, models=found), self._run_id, self._gpus.count)

    def loop(self) -> None:
        """Submit, watch and judge until nothing is left."""
        while self.waiting or self._engine.busy():
            if self.stops:
                self.waiting.clear()
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
        self.waiting.close(wait=not self.stops)
        self._host.close()

    def _next(self) -> Shard | None:
        """Return the first shard that can start now; drop those whose environment is not to be had."""
        if self._outage.lasts():
            if self._outage.given_up:
                self._give_up(self._outage.given_up)
            return None
        room = {"cpu": self._engine.takes(gpu=False), "cuda": self._engine.takes(gpu=True) and self._gpus.free}
        while (taken := self.waiting.take(room, self._gpus.serves)) is not None:
            shard, error = taken
            if error is None:
                return shard
            if shard.device == "cuda" and not self._gpus.strict:
                self.waiting.add_first([shard])
                self._obey(self._gpus.lose_all(shard.environment, str(error)))
                return None
            for task in shard.tasks:
                self._drop(task.name, str(error))
        return None

    def _submit(self, shard: Shard) -> None:
        shard = attempts.without(shard, {name for name, count in self._report.models.items() if count.unavailable})
        if shard.items:
            gpus = self._gpus.take(shard) if shard.device == "cuda" else ()
            job = Job(shard, gpus, self._job.memory_bytes)
            self._attempts[job.name] = Attempt(shard, gpus, self._runtime.way)
            self._engine.submit([job])

    def _end(self, attempt: Attempt, ended: Ended) -> None:
        self._gpus.give_back(attempt.gpus)
        self.unclean = self.unclean or not ended.ok
        for model, why in attempt.dropped.items():
            self._drop(model, f"cannot load: {why}")
        if attempt.trouble or ended.code == protocol.EXIT_OUTPUT:
            self._give_up(f"output {self._output}: {attempt.trouble or 'cannot be written'}")
        elif self.stops or self._report.trouble:
            return
        elif ended.problem and not ended.ok and self._outage.begins(attempt.shard):
            self.waiting.add_first([attempts.rerun(attempt.shard, attempt.left())])
        elif fault := self._gpus.fault(attempt, ended):
            self.waiting.add_first([attempts.rerun(attempt.shard, attempt.left())])
            self._obey(self._gpus.lose(attempt, fault, ended.problem is not None, self._runtime))
        else:
            self._follow(attempt.shard, ended, self._judge.end(attempt, ended))

    def _give_up(self, why: str) -> None:
        self._report.trouble = why
        self.waiting.clear()
        self._engine.cancel()

    def _obey(self, decision: Decision) -> None:
        """Do what the loss of a GPU means for the shards that wait."""
        if decision.drop:
            for model in self._plan.models:
                without = self._placement.device(model.environment, model.name) == "cpu"
                if without and model.extractor.uses_gpu() and self._plan.work(model):
                    self._drop(model.name, decision.text)
        elif decision.text:
            self._progress.say(decision.text)
        self.waiting.move()

    def _follow(self, shard: Shard, ended: Ended, verdict: Verdict) -> None:
        if not ended.ok and (verdict.shards or verdict.failures):
            self._progress.say(f"{shard.environment}: a worker ended ({attempts.words(ended)}); {verdict.consequence}")
        for failure in verdict.failures:
            self._host.emit(Event("failed", item=failure.item, model=failure.model, failure=failure), durable=True)
            self._report.fail(failure)
        for model, why in verdict.dropped.items():
            self._drop(model, f"cannot load: {why}")
        if verdict.lost:
            self._report.lost.append(f"{shard.environment}: {verdict.lost}")
            self._progress.say(self._report.lost[-1])
        # a problem may pass, as when the engine is started anew
        wait = _WAITS[min(shard.attempt, len(_WAITS)) - 1] if ended.problem else 0.0
        self.waiting.add_first(verdict.shards, wait)

    def _drop(self, model: str, why: str) -> None:
        if self._report.unavailable(model, why if why.startswith(f"{model}:") else f"{model}: {why}"):
            self._progress.say(self._report.models[model].unavailable or why)
