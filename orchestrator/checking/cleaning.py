"""What takes room and can go: of the cache what nothing names, of a run arrays and records together."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import typing as tp

from orchestrator.checking.run_folder import RunFolder
from orchestrator.environments import definitions
from orchestrator.environments.leftovers import Leftover, discard, in_cache
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.files import taken
from orchestrator.job import reading
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import OutputDir
from orchestrator.output.ledger import Ledger
from orchestrator.planning import status
from orchestrator.running.runtimes import RUNTIMES
from orchestrator.running.runtimes.base import READY
from orchestrator.weights.store import Weights
from worker import formats
from worker.extractor import Checkpoint
from worker.protocol import Record


def of_cache(weights: bool) -> tp.Iterator[Leftover]:
    """Yield what builds and downloads have left; with `weights` also every checkpoint that can be fetched again."""
    ours = [(one, variant) for one in map(definitions.find, definitions.names()) for variant in one.spec.locks]
    for kind in RUNTIMES.values():
        with contextlib.suppress(EnvironmentUnavailable):  # it is not on this machine
            runtime = kind.open()
            # what was never finished has the place of what is ready
            ready = {runtime.place(*one) for one in ours if runtime.state(*one) == READY}
            yield from runtime.leftovers(ready)
    yield from _partials(Weights().root)
    yield from _checkpoints(Weights()) if weights else ()


def _partials(root: pathlib.Path) -> tp.Iterator[Leftover]:
    for base, _, names in os.walk(root):
        for path in [pathlib.Path(base, name) for name in names if name.endswith(".part")]:
            lock = next(folder / ".lock" for folder in path.parents if folder == root or (folder / ".lock").exists())
            with taken(lock) as free:
                if free and in_cache(path):
                    remove = functools.partial(discard, path, lock)
                    yield Leftover("half-fetched weights", str(path), path.stat().st_size, remove)


def _checkpoints(weights: Weights) -> tp.Iterator[Leftover]:
    for one in weights.lock.entries():
        checkpoint = Checkpoint(one.kind, one.name, one.revision, one.file, one.sha256, one.licence)
        path = weights.path(checkpoint)
        if in_cache(path) and not one.by_hand:
            found, remove = path.stat(), functools.partial(discard, path, weights.folder(checkpoint) / ".lock")
            yield Leftover("checkpoints", str(path), found.st_size, remove, max(found.st_atime, found.st_mtime))


@dataclasses.dataclass(frozen=True)
class Removal:
    """What is to go of an output folder, whose lock the caller holds."""

    output: OutputDir
    records: list[Record]
    failures: list[tuple[str, str]]  # item, model
    strangers: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # model, path; no record names them

    def rows(self) -> list[tuple[str, str, int]]:
        """Return (what, path or item, bytes)."""
        files = [(f"arrays of {r.model}", r.path) for r in self.records]
        files += [(f"files of {model} without a record", path) for model, path in self.strangers]
        root, holds = self.output.root, self.output.holds
        sized = [(what, path, os.lstat(root / path).st_size if holds(path) else 0) for what, path in files]
        return sized + [(f"failures of {model}", item, 0) for item, model in self.failures]

    def make(self) -> None:
        """Remove files, then what is recorded of them: killed in between, the same command goes on.

        Raises:
            RunFailed: the folder cannot be written.
        """
        ledgers.fold(self.output, self._forget)
        paths = [path for _, path in self.strangers]
        for place in filter(None, map(self.output.place, paths)):
            place.unlink(missing_ok=True)
        for place in filter(None, map(self.output.place, [*paths, *(record.path for record in self.records)])):
            with contextlib.suppress(OSError):  # it holds something, or is gone
                for folder in place.parents:
                    if folder == self.output.root:
                        break
                    folder.rmdir()

    def _forget(self, ledger: Ledger) -> None:
        for record in self.records:
            ledger.forget(record)
        for key in self.failures:
            ledger.failures.pop(key, None)


def of_model(target: RunFolder, name: str) -> Removal:
    """Return all that a model has written.

    Raises:
        JobError: there is nothing of it.
    """
    ledger = target.ledger()
    records = [record for record in ledger.records.values() if record.model == name]
    failures = [key for key in ledger.failures if key[1] == name]
    if not records and not failures:
        known = ", ".join(sorted({r.model for r in ledger.records.values()}))
        raise JobError(f"--model {name}: nothing of it in {target.name}; there is {known}")
    return Removal(target.output, records, failures)


def of_job(target: RunFolder, orphaned: bool) -> Removal:
    """Return what is stale, or orphaned, as `consort status` counts it, of the models of a job or of the last run.

    Of files without a record only those are taken that end as the arrays of their model do; links are not.
    """
    job = status.kept(target.name) if os.path.isdir(target.name) else (reading.read(target.name),)
    surveyed = status.look(*job)
    if not orphaned:
        return Removal(target.output, [r for m in surveyed.plan.models for r in status.stale(surveyed, m)], [])
    models = {model.name for model in surveyed.plan.models}
    items = {choice.source.id for choice in surveyed.plan.choices}
    records = [r for r in surveyed.ledger.records.values() if r.model in models and r.item not in items]
    failures = [key for key in surveyed.ledger.failures if key[1] in models and key[0] not in items]
    recorded = {record.path for record in surveyed.ledger.records.values()}
    endings = {model.name: formats.FORMATS[model.spec.format].suffix for model in surveyed.plan.models}
    strangers = [
        (model, path)
        for model, path in status.orphans(surveyed)
        if path not in recorded and path.endswith(endings[model]) and target.output.holds(path)
    ]
    return Removal(target.output, records, failures, strangers)
