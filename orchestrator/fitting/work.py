"""A fit as a shard: given to the job's engine, followed to its end, and begun again where its GPU is lost."""

import dataclasses
import itertools
import os
import pathlib
import shutil
import time
import typing as tp

from orchestrator.environments import definitions
from orchestrator.errors import EnvironmentUnavailable, JobError, RunFailed
from orchestrator.job.spec import JobSpec
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import OutputDir
from orchestrator.planning import shards
from orchestrator.running import attempts
from orchestrator.running.attempts import Attempt
from orchestrator.running.engines import ENGINES
from orchestrator.running.engines.base import Ended, Engine, Job, Site
from orchestrator.running.engines.local import default_slots
from orchestrator.running.gpus import Gpus
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from worker import catalog, protocol
from worker.protocol import Event, Shard, Task
from worker.request import Fit

_PAUSE = 0.05  # seconds between two looks at the worker

_Facts = dict[str, tp.Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """One fit under way."""

    job: JobSpec  # whose output folder the arrays are read from
    placed: Placement  # where the worker runs
    output: OutputDir  # of what is learned; what the run needs beside that stays only where it fails
    shown: Progress  # says what happens

    def run(self, task: Task, asked: Fit) -> _Facts:
        """Let the model of `task` learn, and return what that is like.

        Raises:
            JobError: it refuses the data or an option.
            EnvironmentUnavailable: its environment, or a GPU that the job insists on, is not to be had.
            RunFailed: the folder cannot be written, or the worker was lost.
        """
        output, runtime = self.output, self.placed.runtime
        output.create()
        with output.lock():
            self.placed.sweep(output)
            ledgers.sweep(output)
            run = output.new_run()
            runtime.log, runtime.warn = run.logs, self.shown.say
            site = Site(self.job, runtime, output, run, os.path.abspath(self.job.output), None)
            engine = ENGINES[self.job.engine](site)
            try:
                facts = self._learn(engine, lambda number: self._shard(f"{run.id}-{number}", task, asked))
            except KeyboardInterrupt:
                self.shown.say("stopping: a training keeps its state (Ctrl-C again to kill)")
                engine.cancel()
                while engine.busy():
                    list(engine.poll())
                    time.sleep(_PAUSE)
                raise
            finally:
                engine.close()
            shutil.rmtree(output.inner, ignore_errors=True)
        return facts

    def _learn(self, engine: Engine, make: tp.Callable[[int], Shard]) -> _Facts:
        """Make attempts until one has an end that is not its GPU's."""
        gpus, runtime = Gpus(self.placed), self.placed.runtime
        for number in itertools.count():
            shard = make(number)
            attempt = Attempt(shard, gpus.take(shard) if shard.device == "cuda" else (), runtime.way)
            job = Job(shard, attempt.gpus, self.job.memory_bytes, default_slots())  # nothing else runs beside it
            facts, ended = _follow(engine, job, attempt, self.shown)
            gpus.give_back(attempt.gpus)
            if ended.ok and facts is not None:
                return facts
            fault = gpus.fault(attempt, ended)
            if fault is None:
                raise _trouble(attempt, ended, self.output.root)
            decision = gpus.lose(attempt, fault, ended.problem is not None, runtime)
            if decision.drop:
                raise EnvironmentUnavailable(decision.text)
            if decision.text:
                self.shown.say(decision.text)
        raise AssertionError("attempts end one way or the other")

    def _shard(self, name: str, task: Task, asked: Fit) -> Shard:
        """Return the shard of one attempt, whose environment is ready."""
        environment, runtime = definitions.find(catalog.find(task.extractor).environment), self.placed.runtime
        who = (environment.name, task.name)
        device, flags = self.placed.device(*who), self.placed.flags(*who)
        runtime.build(environment, device, lambda text: self.shown.stage(environment.name, text))
        shared = shards.fields(self.job, environment.name, device, flags, slots=1)
        shard = shards.fit(name, environment.name, task, asked, shared)
        if why := runtime.refusal(shard.plugins, shard.tasks):
            raise JobError(why)
        return shard


def _follow(engine: Engine, job: Job, attempt: Attempt, shown: Progress) -> tuple[_Facts | None, Ended]:
    """Run one attempt to its end; return what it has learned, if it says so."""
    facts = None
    engine.submit([job])
    while True:
        for _, happening in engine.poll():
            if isinstance(happening, Ended):
                return facts, happening
            facts = tell(happening, attempt, shown) or facts
        time.sleep(_PAUSE)


def tell(event: Event, attempt: Attempt, shown: Progress) -> _Facts | None:
    """Take in one event of the worker; return what the model is like once it is fitted."""
    match event.kind:
        case "progress":
            shown.stage("fit", f"{100 * event.share:.0f} %  {event.message}" if event.share else event.message or "")
        case "note":
            shown.say(f"fit: {event.message}")
        case "fitted":
            return event.outcome
        case _:
            attempt.note(event)  # which knows all the others
    return None


def _trouble(attempt: Attempt, ended: Ended, folder: pathlib.Path) -> Exception:
    for why in attempt.dropped.values():
        return JobError(why)
    if attempt.trouble:
        return RunFailed(f"{folder}: {attempt.trouble}")
    if ended.code == protocol.EXIT_AGAIN:
        return RunFailed("the fit was stopped; repeat the command (an encoder goes on where it stood)")
    end = f"signal {-ended.code}" if ended.code < 0 else f"code {ended.code}"
    if ended.problem or ended.out_of_memory or ended.hung:
        end = f"itself: {attempts.words(ended)}"
    return RunFailed(f"the fit ended by {end}; repeat the command to go on where it stood, or see {ended.log}")
