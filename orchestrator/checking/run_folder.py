"""What the user points at: an output folder by its own name or by its job file, held still while it is read."""

import contextlib
import os
import pathlib
import shlex
import typing as tp

from orchestrator import files
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import reading
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import INNER, OutputDir
from orchestrator.output.ledger import Ledger
from worker import regular


class RunFolder:
    """An output folder that a run has written."""

    def __init__(self, name: str) -> None:
        """Find the folder: `name` is its own, or that of a job file, whose output is meant.

        Raises:
            JobError: there is no such thing, or the job is wrong.
        """
        self.name = name
        if os.path.isdir(name):
            self.output = OutputDir(os.path.abspath(name))
        elif os.path.exists(name):
            self.output = OutputDir(reading.read(name).output)
        else:
            raise JobError(f"{name}: does not exist; name an output folder or a job file")
        self._real = os.path.realpath(self.output.root)

    @property
    def job(self) -> str | None:
        """The job file: the one that was named, or what the last run kept; None where there is neither."""
        if os.path.isfile(self.name):
            return self.name
        run = self.output.last_run()
        return None if run is None else os.path.join(self.name, run.job.relative_to(self.output.root))

    @property
    def command(self) -> str:
        """The words that run its job again."""
        if self.job is None:
            return "consort extract JOB"
        words = ["consort", "extract", self.job]
        # a folder may have been moved since its job was kept
        return shlex.join(words if self.job == self.name else [*words, "--output", self.name])

    def ledger(self) -> Ledger:
        """Return what is recorded, runs that were killed included.

        Raises:
            JobError: no array is.
        """
        ledger = ledgers.read(self.output)
        if not ledger.records:
            raise JobError(f"{self.name}: no run has written an array here; name the output folder or job file of one")
        return ledger

    def place(self, path: str) -> pathlib.Path | None:
        """Return where an array really is; None outside the folder, where a manifest from elsewhere must not lead."""
        found = os.path.realpath(os.path.join(self._real, path))
        return pathlib.Path(found) if found.startswith(self._real + os.sep) else None

    @contextlib.contextmanager
    def at_rest(self) -> tp.Iterator[None]:
        """Keep runs out for as long as the folder is read; works where it may only be read.

        Raises:
            RunFailed: a run is writing there.
        """
        with contextlib.ExitStack() as stack:
            try:
                descriptor = regular.open_file(self.output.inner / "lock")
                if not files.try_lock(stack.enter_context(os.fdopen(descriptor, "rb")), shared=True):
                    raise self._busy()
            except FileNotFoundError:
                pass  # a copy, in which no run is under way
            except OSError as error:
                raise RunFailed(f"{self.name}: {INNER}/lock: {error.strerror}; remove it") from error
            self._refuse_workers()
            yield

    @contextlib.contextmanager
    def in_hand(self) -> tp.Iterator[None]:
        """Hold the folder as a run does, to change something in it.

        Raises:
            JobError: nothing was written there.
            RunFailed: a run is writing there, or it may only be read.
        """
        self.output.refuse_links()  # before anything of it is read
        ledger = self.ledger()  # a folder of something else must stay as it is
        self.output.create({record.path.partition("/")[0] for record in ledger.records.values()})
        with self.output.lock():
            self._refuse_workers()
            yield

    def _refuse_workers(self) -> None:
        """Workers outlive an orchestrator that was killed by some seconds."""
        if any(ledgers.locked(path) for path in ledgers.attempts(self.output)):
            raise self._busy()

    def _busy(self) -> RunFailed:
        return RunFailed(f"output {self.output.root}: a run is writing here; wait for its end, or `consort status`")
