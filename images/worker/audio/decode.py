"""One audio file to float32 waves: hashed, decoded once, mixed and resampled for every model at once.

Two decoders, because each is silently wrong on real files. soundfile goes first; its result counts when
it reached the end without an error and is as long as the file's own headers say (within 50 ms).
Otherwise ffmpeg decodes too, and the longer result wins. Without ffmpeg such a file is an error, never
a shorter result, so that the numbers do not depend on what happens to be installed.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import stat
import time
import typing as tp

import numpy as np
import soundfile

from worker.audio import durations, ffmpeg, spool, waves
from worker.errors import AudioError, NotFiniteError

BLOCK = 1 << 18  # frames per step
TOLERANCE = 0.05  # seconds by which a decode may be shorter than declared
RATES = (1000, 768000)  # Hz; anything outside is a broken header
CHANNELS = 64

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOOKALIKES = (
    (b"version https://git-lfs", "is a git-lfs pointer and not the audio itself; run `git lfs pull`"),
    (b"<!doctype html", "is an HTML page and not audio; download it again"),
    (b"<html", "is an HTML page and not audio; download it again"),
)


@dataclasses.dataclass
class Decoded:
    """A decoded file: what is true of it wherever it lies, and its waves."""

    sha256: str
    duration: float  # seconds of the decoded stream
    sample_rate: int  # Hz, of the file
    channels: int  # of the file
    decoder: str  # "soundfile 1.2.2" (the version of libsndfile) or "ffmpeg 7.0.2"
    flags: tp.List[str]  # sorted: clipped, length_unverified, silent, truncated
    _waves: tp.Dict[waves.Format, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    def wave(self, sample_rate: int, channels: int) -> np.ndarray:
        """Return read-only float32 `[C, T]`, T >= 1, one of the formats given to `decode`.

        `T = floor(n * sample_rate / rate + 0.5)` for n frames in the file (soxr's rule); samples at the
        file's own rate are untouched. Above the spool limit it is a memory map, not always contiguous.

        Raises:
            AudioError: empty, where the file is too short to leave a sample at this rate.
        """
        found = self._waves[sample_rate, channels]
        if not found.shape[1]:
            message = "too short: {:.3f} ms leave no sample at {} Hz".format(self.duration * 1e3, sample_rate)
            raise AudioError("empty", message, self.sha256)
        return found

    def close(self) -> None:
        """Let go of the waves; temporary files vanish with the last view of them."""
        self._waves.clear()

    def __enter__(self) -> "Decoded":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def decode(
    path: str,
    formats: tp.Iterable[waves.Format],
    scratch: str,
    size: tp.Optional[int] = None,
    mtime_ns: tp.Optional[int] = None,
    deadline: float = 600.0,
    spool_bytes: int = spool.LIMIT,
) -> Decoded:
    """Read one file in bounded memory, whatever its length.

    Args:
        path: anything; only regular files (and links to them) are opened.
        formats: (sample rate in Hz, channels 1 or 2) of every wave wanted; or `waves.AS_DECODED` alone.
        scratch: folder for waves above `spool_bytes`; on a disk, since a tmpfs is memory again.
        size: bytes that the file had when the job was planned.
        mtime_ns: its modification time then.
        deadline: seconds that decoding may take.
        spool_bytes: size above which one wave moves to an unlinked file.

    Raises:
        AudioError: see its kinds; the message begins with the file's name.
    """
    wanted = sorted(set(formats))
    if wanted != [waves.AS_DECODED] and any(rate < 1 or channels not in (1, 2) for rate, channels in wanted):
        raise ValueError("formats are (sample rate, 1 or 2 channels), not {}".format(wanted))
    digest: tp.List[str] = []
    try:
        with contextlib.ExitStack() as cleanup, _open(path) as source:
            plan = _Plan(wanted, scratch, spool_bytes, time.monotonic() + deadline, cleanup)
            stamp = _read_stamp(source)
            if any(planned not in (None, now) for planned, now in zip((size, mtime_ns), stamp)):
                raise AudioError("changed", "changed since the job was planned; run again")
            digest.append(_hash(source))
            try:
                return _decode(source, plan, digest[0])
            finally:
                if _read_stamp(source) != stamp:
                    raise AudioError("changed", "changed while it was read; run again")
    except (AudioError, NotFiniteError, MemoryError, OSError) as error:
        kind, text = _classify(error, scratch)
        lasting = getattr(error, "lasting", True)
        raise AudioError(kind, "{}: {}".format(_printable(path), text), "".join(digest), lasting) from None


class _Plan(tp.NamedTuple):
    """What does not depend on the file."""

    formats: tp.List[waves.Format]
    scratch: str
    spool_bytes: int
    deadline: float  # value of time.monotonic()
    cleanup: contextlib.ExitStack  # closes the files of waves that nobody will use

    def record(self, sample_rate: int, channels: int) -> waves.Recorder:
        """Return a recorder, or refuse what only a broken header can say."""
        if not RATES[0] <= sample_rate <= RATES[1]:
            raise AudioError("decode", "a sample rate of {} Hz is not plausible".format(sample_rate))
        if not 1 <= channels <= CHANNELS:
            raise AudioError("decode", "{} channels; 1 to {} can be read".format(channels, CHANNELS))
        recorder = waves.Recorder((sample_rate, channels), self.formats, self.scratch, self.spool_bytes)
        self.cleanup.callback(recorder.close)
        return recorder


class _Take(tp.NamedTuple):
    """What one decoder made of the file."""

    recorder: waves.Recorder
    decoder: str

    @property
    def seconds(self) -> float:
        return self.recorder.meter.frames / self.recorder.sample_rate


class _UnusableError(Exception):
    """One decoder cannot read the file; the other one may."""


def _decode(source: tp.BinaryIO, plan: _Plan, digest: str) -> Decoded:
    _refuse_lookalikes(source)
    declared = durations.declared_duration(source)
    take = _choose(source, plan, declared)
    recorder = take.recorder
    if not recorder.meter.frames:
        raise AudioError("empty", "contains no audio samples")
    flags = {
        "length_unverified": declared is None,
        "truncated": not _is_whole(take, 0.0 if declared is None else declared),
    }
    return Decoded(
        sha256=digest,
        duration=take.seconds,
        sample_rate=recorder.sample_rate,
        channels=recorder.channels,
        decoder=take.decoder,
        flags=sorted([*(flag for flag in flags if flags[flag]), *recorder.meter.flags()]),
        _waves=recorder.finish(),
    )


def _is_whole(take: _Take, declared: float) -> bool:
    return take.seconds >= declared - TOLERANCE


def _choose(source: tp.BinaryIO, plan: _Plan, declared: tp.Optional[float]) -> _Take:
    """Return soundfile's result if it can be believed, otherwise the longer one of both decoders."""
    first: tp.Optional[_Take] = None
    try:
        first = _use_soundfile(source, plan)
        reason = "{:.3f} s".format(first.seconds)
    except _UnusableError as error:
        reason = str(error)
    if first is not None and declared is not None and _is_whole(first, declared):
        return first
    try:
        second = _use_ffmpeg(source, plan)
    except ffmpeg.FfmpegTimeoutError:
        raise AudioError("timeout", "ffmpeg did not finish decoding in time") from None
    except ffmpeg.FfmpegMissingError as error:
        text = "soundfile alone cannot be trusted with it ({}); {}".format(reason, error)
        raise AudioError("decode", text, lasting=False) from None
    except ffmpeg.FfmpegError as error:
        if first is None:
            text = "no decoder can read it (soundfile: {}; ffmpeg: {})".format(reason, error)
            raise AudioError("decode", text) from None
        return first
    return second if first is None or second.seconds > first.seconds else first


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Reads straight on. The base class seeks after every block, which spoils the next frames of an mp3."""

    def seekable(self) -> bool:
        return False


def _use_soundfile(source: tp.BinaryIO, plan: _Plan) -> _Take:
    """Decode with libsndfile, by descriptor: no name, no extension, no second look-up of the path."""
    os.lseek(source.fileno(), 0, os.SEEK_SET)
    try:
        with _Forward(source.fileno(), closefd=False) as handle:
            recorder = plan.record(handle.samplerate, handle.channels)
            _read_blocks(lambda: handle.read(BLOCK, dtype="float32", always_2d=True), recorder, plan.deadline)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, NotFiniteError):
            raise
        raise _UnusableError(str(getattr(error, "error_string", error)).rstrip(".")) from None
    return _Take(recorder, "soundfile " + soundfile.__libsndfile_version__)


def _use_ffmpeg(source: tp.BinaryIO, plan: _Plan) -> _Take:
    program = ffmpeg.find()
    with contextlib.closing(ffmpeg.PcmStream(program, source.fileno(), plan.deadline)) as stream:
        recorder = plan.record(stream.sample_rate, stream.channels)
        _read_blocks(lambda: stream.read(BLOCK), recorder, plan.deadline)
    return _Take(recorder, "ffmpeg " + ffmpeg.version(program))


def _read_blocks(read: tp.Callable[[], np.ndarray], recorder: waves.Recorder, deadline: float) -> None:
    """Feed blocks until one comes short, which is how both decoders tell the end of the stream."""
    while True:
        block = read()
        if len(block):
            recorder.push(block)
        if len(block) < BLOCK:
            return
        if time.monotonic() > deadline:
            raise AudioError("timeout", "decoding did not finish in time")


def _open(path: str) -> tp.BinaryIO:
    """Open a regular file; everything else could block for ever, never end, or do something."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise AudioError("unreadable", "is not a regular file")
    source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 1 << 16)
    if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
        source.close()
        raise AudioError("changed", "is no longer a regular file")
    return source


def _read_stamp(source: tp.BinaryIO) -> tp.Tuple[int, int]:
    status = os.fstat(source.fileno())
    return status.st_size, status.st_mtime_ns


def _hash(source: tp.BinaryIO) -> str:
    digest = hashlib.sha256()
    for chunk in iter(lambda: source.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()


def _refuse_lookalikes(source: tp.BinaryIO) -> None:
    """Say what a file really is where decoders would only say that they do not know it."""
    source.seek(0)
    head = source.read(512)
    if not head:
        raise AudioError("empty", "file is empty (0 bytes)")
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, meaning in _LOOKALIKES:
        if head.startswith(start):
            raise AudioError("decode", meaning)


def _classify(error: Exception, scratch: str) -> tp.Tuple[str, str]:
    """Return the kind of an error and its text for the user."""
    if isinstance(error, AudioError):
        return error.kind, str(error)
    if isinstance(error, NotFiniteError):
        return "nonfinite", str(error)
    if isinstance(error, MemoryError):
        return "memory", "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return "memory", "no room in {} for the decoded audio".format(scratch)
    return "unreadable", (error.strerror if isinstance(error, OSError) else "") or str(error)


def _printable(path: str) -> str:
    """Return the file's name on one line, with escapes for what is not text."""
    name = os.path.basename(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
