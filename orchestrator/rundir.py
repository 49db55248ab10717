"""Every path below an output folder, in one place."""

import contextlib
import fcntl
import os
import pathlib
import time
import typing as tp

from orchestrator.errors import RunFailed


class OutputDir:
    """An output folder: arrays and the manifest on top, everything else in `.consort`."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = pathlib.Path(root)
        self.inner = self.root / ".consort"
        self.manifest = self.root / "manifest.jsonl"
        self.failures = self.inner / "failures.jsonl"
        self.sources = self.inner / "sources.jsonl"
        self.records = self.inner / "records"
        self.contexts = self.inner / "contexts"
        self.scratch = self.inner / "scratch"
        self.runs = self.inner / "runs"

    def create(self) -> None:
        """Make the folders.

        Raises:
            RunFailed: the place cannot be written.
        """
        try:
            for folder in (self.inner, self.records, self.contexts, self.scratch, self.runs):
                folder.mkdir(parents=True, exist_ok=True)
                self.hand_over(folder)
        except OSError as error:
            raise RunFailed(f"output {self.root}: {error.strerror}; choose another folder") from error

    def hand_over(self, path: pathlib.Path) -> None:
        """Give what root has made to the owner of the folder, as whom containers write there."""
        if os.geteuid() == 0:
            owner = os.stat(self.root)
            os.chown(path, owner.st_uid, owner.st_gid)

    @contextlib.contextmanager
    def lock(self) -> tp.Iterator[None]:
        """Hold the folder against a second run.

        Raises:
            RunFailed: another run has it.
        """
        try:
            f = open(self.inner / "lock", "a", encoding="ascii")  # noqa: SIM115 - closed below
        except OSError as error:
            raise RunFailed(f"output {self.root}: {error.strerror}; choose another folder") from error
        with f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunFailed(
                    f"output {self.root}: another run is writing here; wait, or `consort status`"
                ) from error
            yield

    def new_run(self) -> "RunDir":
        """Return the folder of a new run; its name begins with the time, so names sort by age."""
        milliseconds = time.time_ns() // 10**6 % 1000
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{milliseconds:03d}-{os.urandom(2).hex()}"
        run = RunDir(self.runs / run_id)
        run.logs.mkdir(parents=True)
        run.shards.mkdir()
        return run

    def last_run(self) -> "RunDir | None":
        """Return the newest run that got as far as its plan."""
        plans = sorted(self.runs.glob("*/plan.json")) if self.runs.is_dir() else []
        return RunDir(plans[-1].parent) if plans else None


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


def replace(path: pathlib.Path, text: str, encoding: str = "ascii") -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, whatever dies."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "w", encoding=encoding, errors="surrogateescape", newline="\n") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; make room and run again") from error
