"""Find the audio of a job: a folder, one file, a list, or a table with labels. Reads no audio."""

import csv
import fnmatch
import os
import pathlib
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job import folder, synthetic
from orchestrator.job.folder import look
from orchestrator.job.items import Audio, LeftOut, Source, Tally
from orchestrator.job.spec import SYNTHETIC, JobSpec


def scan(job: JobSpec) -> Audio:
    """Return the audio of `job`.

    Raises:
        JobError: the path is missing, a list names files outside its root, or nothing was found.
    """
    made = job.audio == SYNTHETIC
    path = synthetic.path(job) if made else pathlib.Path(job.audio)
    if not made and os.path.isdir(path):
        audio = folder.walk(str(path), job.links)
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
        said = "".join(f"; left out: {one}" for one in audio.left_out)
        raise JobError(f"audio: no audio found in {job.audio}; wav flac mp3 ogg opus m4a and their like are{said}")
    return Audio(audio.root, sorted(chosen, key=lambda s: s.id), audio.left_out + _unchosen(job, audio, chosen))


def root_of(job: JobSpec) -> str:
    """Return the folder that the ids of a job's items are relative to."""
    if job.audio == SYNTHETIC:
        return str(synthetic.path(job).parent)
    return job.audio_root or (job.audio if os.path.isdir(job.audio) else os.path.dirname(job.audio))


def find(job: JobSpec, item: str) -> Source:
    """Return an item of a job's as it is now."""
    return look(root_of(job), item, {}, job.links)


def _chosen(item: str, job: JobSpec) -> bool:
    included = not job.include or any(fnmatch.fnmatchcase(item, p) for p in job.include)
    return included and not any(fnmatch.fnmatchcase(item, p) for p in job.exclude)


def _unchosen(job: JobSpec, audio: Audio, chosen: list[Source]) -> list[LeftOut]:
    """Return what `include` and `exclude` leave out, and the patterns that match nothing."""
    tally = Tally()
    taken = {source.id for source in chosen} if len(chosen) < len(audio.sources) else ()
    for source in audio.sources if taken else ():
        if source.id not in taken:
            tally.add("by `include` and `exclude`", source.id)
    for pattern in job.include:
        if not any(fnmatch.fnmatchcase(source.id, pattern) for source in audio.sources):
            tally.add("patterns of `include` that match nothing", pattern)
    return tally.left_out()


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
