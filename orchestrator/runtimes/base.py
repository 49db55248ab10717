"""A runtime turns a shard into a command; engines run the command, the same way for all runtimes."""

import abc
import dataclasses
import pathlib
import typing as tp

from orchestrator.environments import Environment
from worker.protocol import Shard


@dataclasses.dataclass(frozen=True)
class Command:
    """What to start. Standard input stays open for as long as the worker may live."""

    argv: list[str]
    env: dict[str, str]
    cwd: str


@dataclasses.dataclass(frozen=True)
class Mounts:
    """Where a run's things are on the host."""

    audio: str
    output: str
    weights: str
    scratch: str
    ffmpeg: str
    plugins: tuple[str, ...] = ()


class Runtime(abc.ABC):
    """One way to start a worker."""

    name: tp.ClassVar[str]

    @abc.abstractmethod
    def prepare(self, environment: Environment, variant: str, say: tp.Callable[[str], None]) -> None:
        """Make an environment ready on this machine; idempotent.

        Raises:
            EnvironmentUnavailable: it cannot be had; one line that says what to do.
        """

    @abc.abstractmethod
    def cancel(self) -> None:
        """End every `prepare` that is under way."""

    @abc.abstractmethod
    def ready(self, environment: Environment, variant: str) -> bool:
        """Return whether `prepare` would have nothing to do."""

    @abc.abstractmethod
    def command(self, shard: Shard, variant: str, mounts: Mounts, file: pathlib.Path, events: pathlib.Path) -> Command:
        """Return the command that runs the shard in `file` and appends its events to `events`."""
