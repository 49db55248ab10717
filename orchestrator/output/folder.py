"""Every path below an output folder, in one place; nothing there is trusted, as others may have made it.

A link in `.consort` would lead what is written, removed or given to another owner out of the folder, and a
FIFO would be waited for: both are refused, by name, before anything is opened and again once workers have run.
"""

import contextlib
import datetime
import errno
import itertools
import json
import os
import pathlib
import re
import stat
import typing as tp

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.text import printable
from worker import regular

INNER = ".consort"
RUN = re.compile(r"(\d{8}-\d{6}-\d{3})-[0-9a-f]{4}(?![0-9a-f])")  # what names of a run's files begin with
_STAMP, _DIGITS = "%Y%m%d-%H%M%S-%f", 19  # of which three are milliseconds


class OutputDir:
    """An output folder: arrays and the manifest on top, everything else in `.consort`."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = pathlib.Path(root)
        self.inner = self.root / INNER
        self.manifest = self.root / "manifest.jsonl"
        self.failures = self.inner / "failures.jsonl"
        self.sources = self.inner / "sources.jsonl"
        self.records = self.inner / "records"
        self.contexts = self.inner / "contexts"
        self.scratch = self.inner / "scratch"
        self.runs = self.inner / "runs"

    def place(self, path: str) -> pathlib.Path | None:
        """Return where an array is by its record's path; None where that, anybody's, leads elsewhere."""
        parts = path.split("/")
        if not _leads_below(parts):
            return None
        inside = [self.root.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
        return None if any(folder.is_symlink() for folder in inside) else self.root.joinpath(*parts)

    def holds(self, path: str, size: int | None = None) -> bool:
        """Return whether an array is there, with that size; a link is none."""
        try:
            found = os.lstat(os.path.join(self.root, path))
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(found.st_mode) and size in (None, found.st_size) and _leads_below(path.split("/"))

    def create(self, folders: tp.Collection[str] = ()) -> None:
        """Make the folders, unless something there, or in the `folders` of models, would lead out of the folder.

        Raises:
            RunFailed: the place cannot be written, or must not be.
        """
        self.refuse_links(folders)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFailed(f"output {self.root}: {error.strerror}; choose another folder") from error
        for folder in (self.inner, self.records, self.contexts, self.scratch, self.runs):
            self.make(folder)

    def make(self, folder: pathlib.Path, new: bool = False) -> None:
        """Make a folder in `.consort`; `new` ones must not be there already.

        Raises:
            RunFailed: it cannot be made.
        """
        try:
            files.make_folder(folder, new)
        except OSError as error:
            then = "remove it and run again" if isinstance(error, FileExistsError) else "choose another folder"
            raise RunFailed(f"output {self.root}: {self._name(folder)}: {error.strerror}; {then}") from error

    def refuse_file(self) -> None:
        """Look whether there is a file where the folder is meant to be.

        Raises:
            RunFailed: there is one, or in the place of a folder above.
        """
        there = next((place for place in (self.root, *self.root.parents) if os.path.exists(place)), self.root)
        if os.path.lexists(there) and not there.is_dir():
            raise RunFailed(f"output {self.root}: {there} is a file; choose another folder")

    def refuse_links(self, folders: tp.Collection[str] = ()) -> None:
        """Look at everything in `.consort` and at the folders of models.

        Raises:
            RunFailed: something there is neither a file nor a folder.
        """
        self.refuse_file()
        try:
            ours = [entry for entry in _entries(self.root) if entry.name in (self.inner.name, *folders)]
            for entry in itertools.chain(ours, _below(self.inner)):
                if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                    raise self._foreign(pathlib.Path(entry.path))
        except OSError as error:
            raise RunFailed(f"output {self.root}: {error.strerror}: {error.filename}; choose another folder") from error

    def refuse_moved(self, *folders: pathlib.Path) -> None:
        """Look, in the middle of a run, whether the folders that it writes into are still folders.

        Raises:
            RunFailed: one of them is not.
        """
        for folder in (self.inner, self.records, self.contexts, self.scratch, self.runs, *folders):
            try:
                good = stat.S_ISDIR(os.lstat(folder).st_mode)
            except OSError as error:
                raise RunFailed(f"output {self.root}: {self._name(folder)}: {error.strerror}; run again") from error
            if not good:
                raise self._foreign(folder)

    def _foreign(self, path: pathlib.Path) -> RunFailed:
        what = "a link" if path.is_symlink() else "a FIFO" if path.is_fifo() else "no file and no folder"
        then = "remove it and run again, or choose another folder"
        return RunFailed(f"output {self.root}: {self._name(path)} is {what}, and none is followed there: {then}")

    def _name(self, path: pathlib.Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    @contextlib.contextmanager
    def lock(self) -> tp.Iterator[None]:
        """Hold the folder against a second run.

        Raises:
            RunFailed: another run has it.
        """
        path = self.inner / "lock"
        try:
            if not os.path.lexists(path):
                with contextlib.suppress(FileExistsError):  # made by another run at the same moment
                    os.close(files.make_file(path))
            f = os.fdopen(regular.open_file(path, os.O_WRONLY), "wb")
        except OSError as error:
            raise RunFailed(f"output {self.root}: {error.strerror}; choose another folder") from error
        with f:
            if not files.try_lock(f):
                raise RunFailed(f"output {self.root}: another run is writing here; wait, or `consort status`")
            yield

    def new_run(self) -> "RunDir":
        """Return the folder of a new run, whose name sorts behind those of all runs before it.

        It begins with the time, unless a clock that was ahead has named a run: then a millisecond behind that one.
        """
        now = datetime.datetime.now()
        now -= datetime.timedelta(microseconds=now.microsecond % 1000)
        known = [
            RUN.match(name) for folder in (self.runs, self.records) if folder.is_dir() for name in os.listdir(folder)
        ]
        for stamp in [found.group(1) for found in known if found]:
            with contextlib.suppress(ValueError, OverflowError):  # anybody may have made it
                now = max(now, datetime.datetime.strptime(stamp, _STAMP) + datetime.timedelta(milliseconds=1))
        run = RunDir(self.runs / f"{now.strftime(_STAMP)[:_DIGITS]}-{os.urandom(2).hex()}")
        self.runs.mkdir(parents=True, exist_ok=True)
        for folder in (run.root, run.logs, run.shards):
            self.make(folder, new=True)
        return run

    def last_run(self) -> "RunDir | None":
        """Return the newest run that got as far as its plan."""
        found = [RunDir(path.parent) for path in sorted(self.runs.glob("*/plan.json")) if path.is_file()]
        whole = [run for run in found if run.job.is_file() or not run.job.exists()]  # a FIFO would be waited for
        return whole[-1] if whole else None

    def made_with(self) -> str | None:
        """Return the runtime of the newest run, or None where none says it."""
        for root in sorted(self.runs.glob("*"), reverse=True) if self.runs.is_dir() else ():
            run = RunDir(root)
            for path in (run.plan, run.report):  # plans of 0.4 do not say it
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                    facts = json.loads(files.read_text(path))
                    return str(facts.get("placement", facts)["runtime"])
        return None


class RunDir:
    """One run: what was asked, what was decided, and what the processes said."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.id = root.name
        self.job = root / "job.yaml"
        self.plan = root / "plan.json"
        self.items = root / "items.jsonl"
        self.report = root / "report.json"
        self.logs = root / "logs"
        self.shards = root / "shards"

    def log(self, name: str) -> pathlib.Path:
        """Return what a process of that name prints."""
        return self.logs / f"{name}.log"


def _leads_below(parts: list[str]) -> bool:
    return not {"", ".", ".."} & set(parts)  # an absolute path begins with an empty part


def _below(folder: pathlib.Path) -> tp.Iterator["os.DirEntry[str]"]:
    """Yield everything below a folder; links are not followed."""
    waiting = [os.fspath(folder)]
    while waiting:
        for entry in _entries(waiting.pop()):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def _entries(folder: str | os.PathLike[str]) -> tp.Iterator["os.DirEntry[str]"]:
    """Yield what is in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # gone meanwhile, or never there
            raise
