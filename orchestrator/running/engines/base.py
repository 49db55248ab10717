"""An engine runs jobs somewhere. What happens comes back as the events of their workers, and their ends."""

import abc
import dataclasses
import pathlib
import typing as tp

from orchestrator.job.spec import JobSpec
from orchestrator.output.folder import OutputDir, RunDir
from orchestrator.running.runtimes.base import Runtime
from orchestrator.weights.store import Weights
from worker.protocol import Event, Shard


@dataclasses.dataclass(frozen=True)
class Job:
    """A shard, which is the same JSON wherever it runs, and what it needs there."""

    shard: Shard  # names its environment and variant
    gpus: tuple[str, ...] = ()  # UUIDs of those that it was granted; one with GPUs takes no slot of the CPU's
    memory: int | None = None  # bytes that it may take, where the user limits them
    threads: int = 1  # that each of its libraries may start

    @property
    def name(self) -> str:
        """The name of this attempt."""
        return f"{self.shard.id}.{self.shard.attempt}"


@dataclasses.dataclass(frozen=True)
class Site:
    """What the jobs of one run have in common; the folders are on storage that every machine of an engine sees."""

    spec: JobSpec
    runtime: Runtime
    output: OutputDir
    run: RunDir
    audio: str  # of a fit: the arrays that it reads
    weights: Weights | None  # None where none are needed
    beyond: tuple[str, ...] = ()  # folders that links in the audio lead to


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a job, complete: nobody else has to be asked. It succeeded only with `finished` seen and code 0."""

    code: int
    finished: bool
    hung: bool  # it was killed, because nothing happened for too long
    log: pathlib.Path
    out_of_memory: bool = False  # the system has killed it for its memory
    problem: str | None = None  # why it could not even be started
    limit: str | None = None  # of memory, where it had one that the job did not ask for

    @property
    def ok(self) -> bool:
        return self.finished and self.code == 0


Happening = tuple[Job, Event | Ended]


class Engine(abc.ABC):
    """A place with a number of slots."""

    slots: int

    def check(self) -> list[str]:
        """Return what is missing for it to work, a line each; asked before anything is submitted."""
        return []

    @abc.abstractmethod
    def takes(self, gpu: bool) -> bool:
        """Return whether a job on a GPU, or on the CPU, could be submitted now."""

    @abc.abstractmethod
    def submit(self, jobs: tp.Sequence[Job]) -> None:
        """Start jobs.

        Raises:
            RunFailed: the output folder cannot be used.
        """

    @abc.abstractmethod
    def poll(self) -> tp.Iterator[Happening]:
        """Yield what happened since the last call, an `Ended` last for every job that ended.

        Raises:
            RunFailed: the output folder cannot be used.
        """

    @abc.abstractmethod
    def busy(self) -> bool:
        """Return whether any job has not ended."""

    @abc.abstractmethod
    def cancel(self, kill: bool = False) -> None:
        """Ask every worker to commit what is finished and end; `kill` does not ask."""

    def attach(self) -> list[Job]:
        """Take over the jobs of a run whose orchestrator died, and return them; most engines let them end."""
        return []

    def close(self) -> None:
        """End and remove everything that is left."""
        self.cancel(kill=True)
