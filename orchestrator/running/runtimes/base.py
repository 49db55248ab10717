"""A runtime turns a shard into a command; engines run the command, the same way for all runtimes."""

import abc
import dataclasses
import os
import pathlib
import typing as tp

from orchestrator.environments import processes
from orchestrator.environments.definitions import Environment
from orchestrator.environments.leftovers import Leftover
from orchestrator.errors import JobError
from orchestrator.output.folder import OutputDir
from worker.extractor import beside
from worker.protocol import Shard, Task

READY, OUTDATED, MISSING = "ready", "of other code", "not built"
# One single-threaded process per core beats one process with many threads, and gives the same bytes
# on every machine.
THREADS = dict.fromkeys((
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
), "1")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Command:
    """What to start. Standard input stays open for as long as the worker may live.

    `kill` ends at once what the command has started elsewhere, where killing the command would not.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    kill: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Mounts:
    """Where a run's things are on the host; `own` are files and folders of the user's that a job names."""

    audio: str  # of a fit: the arrays that it reads
    output: str
    weights: str  # empty where none are needed
    scratch: str
    ffmpeg: str
    own: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a worker may use."""

    gpus: tuple[str, ...] = ()  # UUIDs; none: the CPU
    memory: int | None = None  # bytes, where the job limits them
    threads: int = 1  # of each library; what they compute may depend on their number

    @property
    def thread_variables(self) -> dict[str, str]:
        """What tells the libraries how many threads to take."""
        return dict.fromkeys(THREADS, str(self.threads))


@dataclasses.dataclass(frozen=True)
class Cause:
    """What a runtime knows about the end of a worker beyond its exit code."""

    out_of_memory: bool = False
    problem: str | None = None  # why it could not be started at all
    limit: str | None = None  # of memory, where it had one that the job did not ask for


class Runtime(abc.ABC):
    """One way to have the environments on this machine, and to start a worker in them."""

    name: tp.ClassVar[str]
    every_variant: tp.ClassVar[bool] = False  # that for the CPU is kept beside the one for the GPU
    log: pathlib.Path | None = None  # folder for what building prints
    warn: tp.Callable[[str], None] | None = None  # gets what went another way than was meant; None: as progress

    @classmethod
    @abc.abstractmethod
    def open(cls) -> "Runtime":
        """Return the runtime of this machine.

        Raises:
            EnvironmentUnavailable: it is not there; one line that says what to do.
        """

    @property
    def title(self) -> str:
        """What answers here, for people."""
        return self.name

    def without_gpus(self) -> str | None:
        """Return why no worker can have a GPU here, or None."""
        return None

    def hesitates(self, used: tp.Sequence[tuple[Environment, str]]) -> str | None:
        """Return why `runtime: auto` should take another one for these environments and variants, or None."""
        return None

    @abc.abstractmethod
    def state(self, environment: Environment, variant: str) -> str:
        """Return READY, OUTDATED or MISSING."""

    @abc.abstractmethod
    def place(self, environment: Environment, variant: str) -> str:
        """Return the folder or the name under which an environment is, or would be, kept."""

    @abc.abstractmethod
    def size(self, environment: Environment, variant: str) -> int | None:
        """Return the bytes that an environment takes, or None where there is none."""

    @abc.abstractmethod
    def build(self, environment: Environment, variant: str, say: tp.Callable[[str], None]) -> None:
        """Make an environment ready on this machine; idempotent.

        Raises:
            EnvironmentUnavailable: it cannot be had; one line that says what to do.
        """

    def build_beside(self, say: tp.Callable[[str], None]) -> list[str]:
        """Make what is needed beside environments, and return its names."""
        return []

    def attest(self) -> None:
        """Let every build from here on be attested: which packages are in it, and how it was built.

        Raises:
            ConsortError: that cannot be had; one line that says what is needed.
        """
        raise JobError("--attest: attestations are of images; add `--runtime docker`")

    @abc.abstractmethod
    def remove(self, environment: Environment) -> list[str]:
        """Remove an environment in every variant; return what was removed."""

    def leftovers(self, named: tp.Container[str]) -> tp.Iterable[Leftover]:
        """Return what is on this machine of environments, but for the places that are named."""
        return ()

    def divide(self, workers: int) -> str | None:
        """Share this machine out among workers that may run at the same time.

        Returns:
            What each of them may take where the job does not say it, or None where nothing limits them.
        """
        return None

    def cancel(self) -> None:
        """End every `build` that is under way."""
        processes.cancel()

    @abc.abstractmethod
    def command(
        self, shard: Shard, mounts: Mounts, file: pathlib.Path, events: pathlib.Path, resources: Resources
    ) -> Command:
        """Return the command that runs the shard in `file` and appends its events to `events`.

        Both are below the output folder.
        """

    @abc.abstractmethod
    def script(
        self, environment: Environment, arguments: list[str], folder: str, gpus: tp.Sequence[str] = ()
    ) -> Command:
        """Return the command that runs the Python of a ready environment for a person.

        The folder is the current one, which a script of theirs may write whatever else it sees. With `gpus`, which are
        UUIDs, it is the environment's variant for them.

        Raises:
            EnvironmentUnavailable: the folder cannot be seen there; one line that says what to do.
        """

    def refuses(self, path: str) -> str | None:
        """Return why a file or folder of the user's own cannot be given to a worker, or None."""
        return None

    def refusal(self, plugins: tp.Iterable[str], tasks: tp.Iterable[Task]) -> str | None:
        """Return why a worker cannot be given what a job and its tasks name of the user's own, or None."""
        return next(filter(None, map(self.refuses, own_paths(plugins, tasks))), None)

    def end(self, name: str, code: int, log: pathlib.Path) -> Cause:
        """Clean up after the attempt `name`, and return why it ended as it did."""
        return Cause()

    def outage(self, environment: Environment, variant: str) -> str | None:
        """Return why no worker can be started at present and what mends it, or None and clean up after it."""
        return None

    @property
    def way(self) -> str:
        """How GPUs are asked for at present."""
        return self.name

    def another_way(self) -> bool:
        """Return whether GPUs can be asked for in another way than the one that has failed, and take it."""
        return False

    def sweep(self, output: OutputDir) -> None:  # noqa: B027 - most runtimes leave nothing
        """Remove what workers of dead runs have left outside the output folder, whose lock the caller holds."""

    def close(self) -> None:  # noqa: B027
        """End and remove everything that this run has started."""


def own_paths(plugins: tp.Iterable[str], tasks: tp.Iterable[Task]) -> list[str]:
    """Return what tasks name of the user's own: folders of plug-ins, and weights with what is said of them."""
    paths = dict.fromkeys(plugins)
    for path in [path for task in tasks for path in task.files.values() if os.path.isabs(path)]:
        paths.update(dict.fromkeys([path, *filter(os.path.exists, beside(path))]))
    return list(paths)
