"""Find the audio of a job: a folder, one file, a list, or a table with labels. Reads no audio."""

import os
import pathlib
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job import endings, folder, listed, lists, patterns, synthetic
from orchestrator.job.items import Audio, LeftOut, Source, Tally
from orchestrator.job.rows import Columns
from orchestrator.job.spec import SYNTHETIC, JobSpec
from worker import segment
from worker.segment import Segment


def scan(job: JobSpec) -> Audio:
    """Return the audio of `job`.

    Raises:
        JobError: the path is missing, a list names files outside its root, or nothing was found.
    """
    made = job.audio == SYNTHETIC
    path = synthetic.path(job) if made else pathlib.Path(job.audio)
    if not made and os.path.isdir(path):
        audio = folder.walk(str(path), job.links)
    elif path.suffix.lower() in (*lists.LISTS, *lists.TABLES):
        audio = _listed(job, path)
    elif made or os.path.exists(path):
        _refuse_other(path)
        audio = Audio(str(path.parent), [folder.Places(str(path.parent), job.links).look(path.name)])
    else:
        raise JobError(f"audio: {job.audio} does not exist; give a folder, a file, a list.txt or a table.csv")
    chosen = [s for s in audio.sources if _chosen(s.file, job)]
    if not chosen:
        if audio.sources:
            raise JobError(f"audio: include and exclude leave none of the {len(audio.sources)} files in {job.audio}")
        said = "".join(f"; left out: {one}" for one in audio.left_out)
        raise JobError(f"audio: no audio found in {job.audio}; wav flac mp3 ogg opus m4a and their like are{said}")
    left_out = audio.left_out + _unchosen(job, audio, chosen)
    return Audio(audio.root, sorted(chosen, key=lambda s: s.order), left_out, audio.remarks)


def root_of(job: JobSpec) -> str:
    """Return the folder that the ids of a job's items are relative to."""
    if job.audio == SYNTHETIC:
        return str(synthetic.path(job).parent)
    return job.audio_root or (job.audio if os.path.isdir(job.audio) else os.path.dirname(job.audio))


def find(job: JobSpec, item: str, part: str | None) -> Source:
    """Return an item of a job's as it is now; `part` is its segment, if it is one."""
    file = item if part is None else item.removesuffix(f"#{part}")
    return folder.look(root_of(job), file, job.links).cut(None if part is None else segment.read(part))


def _chosen(item: str, job: JobSpec) -> bool:
    return (not job.include or patterns.takes(job.include, item)) and not patterns.takes(job.exclude, item)


def _unchosen(job: JobSpec, audio: Audio, chosen: list[Source]) -> list[LeftOut]:
    """Return what `include` and `exclude` leave out, and the patterns that match nothing."""
    tally = Tally()
    taken = {source.id for source in chosen} if len(chosen) < len(audio.sources) else ()
    for source in audio.sources if taken else ():
        if source.id not in taken:
            tally.add("by `include` and `exclude`", source.id)
    for key, given in (("include", job.include), ("exclude", job.exclude)):
        for pattern in given:
            if not any(patterns.takes([pattern], source.file) for source in audio.sources):
                tally.add(f"patterns of `{key}` that match nothing", pattern)
    return tally.left_out()


def _refuse_other(path: pathlib.Path) -> None:
    """Refuse one file that is audio neither by its ending nor by its first bytes."""
    if not endings.is_audio(path.name) and not endings.begins_as_audio(folder.head(str(path))):
        said = f"a table? {' '.join(lists.TABLES)} are read; a list? {' '.join(lists.LISTS)}"
        raise JobError(
            f"audio: {path} is no audio by its ending or its first bytes; {said}; else name it after its kind"
        )


def _listed(job: JobSpec, path: pathlib.Path) -> Audio:
    root = job.audio_root or os.path.dirname(job.audio)
    columns = Columns(job.path_column, job.start_column, job.end_column)
    rows = lists.read(path, columns, lambda name: listed.exists(root, name))
    return listed.gather(root, rows, job.links)


def estimate_seconds(root: str, sources: tp.Sequence[Source]) -> dict[str, float]:
    """Return a rough duration of each source from its size, exact enough for a plan (marked `~`).

    WAV headers say their byte rate; for the rest the usual bit rate of the format is taken.
    """
    files = {s.file: s for s in sources}
    whole = {file: max(0, s.size) / _byte_rate(root, s) for file, s in files.items()}
    return {s.id: _share(whole[s.file], s.segment) for s in sources}


def _share(seconds: float, part: Segment | None) -> float:
    if part is None:
        return seconds
    return max(0.0, (seconds if part.end is None else part.end) - part.start)


_RATES = {".flac": 90_000, ".mp3": 20_000, ".ogg": 15_000, ".opus": 12_000, ".m4a": 18_000, ".aac": 16_000}


def _byte_rate(root: str, source: Source) -> float:
    suffix = os.path.splitext(source.file)[1].lower()
    if suffix not in (".wav", ".wave", ".rf64"):
        return _RATES.get(suffix, 20_000)
    try:
        with open(os.path.join(root, source.file), "rb", opener=_no_wait) as f:
            header = f.read(36)
    except OSError:
        header = b""
    rate = int.from_bytes(header[28:32], "little") if header[12:16] == b"fmt " else 0
    return rate if 1_000 <= rate <= 50_000_000 else 88_200


def _no_wait(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO must not block the plan
