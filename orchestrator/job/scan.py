"""Find the audio of a job: a folder, one file, a list, or a table with labels. Reads no audio."""

import csv
import dataclasses
import os
import pathlib
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job import patterns, synthetic
from orchestrator.job.spec import SYNTHETIC, JobSpec

SUFFIXES = frozenset([
    ".wav", ".wave", ".w64", ".rf64", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".aac", ".wma",
    ".webm", ".mp4", ".mkv", ".mka", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".ac3", ".amr", ".ape", ".wv",
    ".mov", ".3gp"
])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Source:
    """One audio file as the scan saw it. `size` is -1 where it could not even be looked at."""

    id: str  # POSIX path relative to the audio root
    size: int
    mtime_ns: int
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Audio:
    """The audio root and what was found below it, sorted by id."""

    root: str
    sources: list[Source]


def scan(job: JobSpec) -> Audio:
    """Return the audio of `job`.

    Raises:
        JobError: the path is missing, a list names files outside its root, or nothing was found.
    """
    made = job.audio == SYNTHETIC
    path = synthetic.path(job) if made else pathlib.Path(job.audio)
    if not made and os.path.isdir(path):
        audio = _folder(path)
    elif path.suffix.lower() in (".txt", ".lst"):
        audio = _listed(job, [(line, {}) for line in _lines(path)])
    elif path.suffix.lower() == ".csv":
        audio = _listed(job, _table(path, job.path_column))
    elif made or os.path.exists(path):
        audio = Audio(str(path.parent), [look(str(path.parent), path.name, {})])
    else:
        raise JobError(f"audio: {job.audio} does not exist; give a folder, a file, a list.txt or a table.csv")
    chosen = [s for s in audio.sources if _chosen(s.id, job)]
    if not chosen:
        if audio.sources:
            raise JobError(f"audio: include and exclude leave none of the {len(audio.sources)} files in {job.audio}")
        raise JobError(f"audio: no audio found in {job.audio}; wav flac mp3 ogg opus m4a and their like are")
    return Audio(audio.root, sorted(chosen, key=lambda s: s.id))


def root_of(job: JobSpec) -> str:
    """Return the folder that the ids of a job's items are relative to."""
    if job.audio == SYNTHETIC:
        return str(synthetic.path(job).parent)
    return job.audio_root or (job.audio if os.path.isdir(job.audio) else os.path.dirname(job.audio))


def _chosen(item: str, job: JobSpec) -> bool:
    return (not job.include or patterns.takes(job.include, item)) and not patterns.takes(job.exclude, item)


def _folder(root: pathlib.Path) -> Audio:
    """Walk `root`; links to folders are followed while they stay inside it, each real folder once.

    Links come last, so that a new one never takes over the name of a folder that is there already.
    """
    base = os.path.realpath(root)
    seen: set[str] = set()
    found: list[Source] = []
    stack = [""]
    links: list[str] = []
    while stack or links:
        inner = stack.pop() if stack else links.pop(0)
        real = os.path.realpath(os.path.join(root, inner))
        if real in seen or os.path.commonpath([real, base]) != base:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(os.path.join(root, inner)), key=lambda e: e.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue  # hidden, as everywhere else
            item = f"{inner}/{entry.name}" if inner else entry.name
            if _is_folder(entry):
                (links if entry.is_symlink() else stack).append(item)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found.append(look(str(root), item, {}))
    return Audio(str(root), found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _listed(job: JobSpec, entries: list[tuple[str, dict[str, str]]]) -> Audio:
    root = job.audio_root or os.path.dirname(job.audio)
    sources: dict[str, Source] = {}
    for name, labels in entries:
        path = os.path.normpath(os.path.join(root, os.path.expanduser(name)))
        item = os.path.relpath(path, root)
        if item == ".." or item.startswith("../"):
            raise JobError(f"audio: {name} lies outside {root}; set audio_root to a folder that holds every entry")
        source = look(root, item, labels)
        if sources.setdefault(item, source) != source:
            raise JobError(f"audio: {name} is listed twice with different labels")
    return Audio(root, list(sources.values()))


def look(root: str, item: str, labels: dict[str, str]) -> Source:
    """Return one file as it is now."""
    try:
        status = os.stat(os.path.join(root, item))
    except (OSError, ValueError):  # the latter for a NUL in a list
        return Source(item, -1, -1, labels)  # the worker says why it cannot be read
    return Source(item, status.st_size, status.st_mtime_ns, labels)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise JobError(f"audio: {path} cannot be read: {error.strerror}") from error
    stripped = [line.strip("\r\n") for line in text.split("\n")]
    return [line for line in stripped if line.strip() and not line.startswith("#")]


def _table(path: pathlib.Path, column: str) -> list[tuple[str, dict[str, str]]]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as f:
            reader = csv.DictReader(f)
            if not reader.fieldnames:
                raise JobError(f"audio: {path.name} is empty; it needs a row of column names")
            if column not in reader.fieldnames:
                known = ", ".join(reader.fieldnames)
                raise JobError(f"audio: {path.name} has no column {column!r}; set path_column to one of: {known}")
            rows = [{k: v or "" for k, v in row.items() if isinstance(k, str)} for row in reader]
    except (OSError, csv.Error) as error:
        raise JobError(f"audio: {path} cannot be read: {error}") from error
    return [(row[column], {k: v for k, v in row.items() if k != column}) for row in rows if row[column]]


def estimate_seconds(root: str, sources: tp.Sequence[Source]) -> dict[str, float]:
    """Return a rough duration of each source from its size, exact enough for a plan (marked `~`).

    WAV headers say their byte rate; for the rest the usual bit rate of the format is taken.
    """
    return {s.id: max(0, s.size) / _byte_rate(root, s) for s in sources}


_RATES = {".flac": 90_000, ".mp3": 20_000, ".ogg": 15_000, ".opus": 12_000, ".m4a": 18_000, ".aac": 16_000}


def _byte_rate(root: str, source: Source) -> float:
    suffix = os.path.splitext(source.id)[1].lower()
    if suffix not in (".wav", ".wave", ".rf64"):
        return _RATES.get(suffix, 20_000)
    try:
        with open(os.path.join(root, source.id), "rb", opener=_no_wait) as f:
            header = f.read(36)
    except OSError:
        header = b""
    rate = int.from_bytes(header[28:32], "little") if header[12:16] == b"fmt " else 0
    return rate if 1_000 <= rate <= 50_000_000 else 88_200


def _no_wait(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO must not block the plan
