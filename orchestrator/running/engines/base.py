"""An engine runs shards side by side and reports what their workers say and how they end."""

import abc
import dataclasses
import pathlib
import typing as tp

from orchestrator.running.runtimes.base import Command
from worker.protocol import Event, Shard


@dataclasses.dataclass(frozen=True)
class Launch:
    """A shard with the command that runs it and the files it writes; one with GPUs takes no slot of the CPU's."""

    shard: Shard
    command: Command
    events: pathlib.Path
    log: pathlib.Path
    gpus: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a worker. It succeeded only with `finished` seen and code 0."""

    code: int
    finished: bool
    hung: bool  # we killed it, because nothing happened for too long
    log: pathlib.Path
    out_of_memory: bool = False  # the runtime knows that the system has killed it for its memory
    problem: str | None = None  # why it could not even be started

    @property
    def ok(self) -> bool:
        return self.finished and self.code == 0


Happening = tuple[Shard, Event | Ended]


class Engine(abc.ABC):
    """A place with a number of slots."""

    slots: int

    @abc.abstractmethod
    def free(self) -> int:
        """Return how many shards without GPUs could be launched now."""

    @abc.abstractmethod
    def launch(self, launch: Launch) -> None:
        """Start a shard in a free slot."""

    @abc.abstractmethod
    def poll(self) -> tp.Iterator[Happening]:
        """Yield what happened since the last call, an `Ended` last for every worker that ended."""

    @abc.abstractmethod
    def busy(self) -> bool:
        """Return whether any worker lives."""

    @abc.abstractmethod
    def stop(self, kill: bool = False) -> None:
        """Ask every worker to commit what is finished and end; `kill` does not ask."""
