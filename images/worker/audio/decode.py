"""One audio file to float32 waves: hashed, decoded once, mixed and resampled for every model at once.

Two decoders, because each is silently wrong on real files. soundfile goes first; its result counts when
it reached the end without an error and is as long as the file's own headers say (within 50 ms).
Otherwise ffmpeg decodes too, and the longer result wins, unless ffmpeg's own account of damaged packets says that
it is none: noise of scrambled packets is no audio. Without ffmpeg such a file is an error, never
a shorter result, so that the numbers do not depend on what happens to be installed.
"""

import contextlib
import dataclasses
import errno
import os
import time
import typing as tp

import numpy as np
import soundfile

from worker.audio import ffmpeg, sources, spool, waves
from worker.errors import AudioError, NotFiniteError

BLOCK = 1 << 18  # frames per step
TOLERANCE = sources.EXACT  # by which a decode may be shorter than declared
RATES = (100, 4000000)  # Hz, of whales to ultrasound; anything outside is a broken header
CHANNELS = 64
_DAMAGED = 0.5  # of the packets: above it there is no stream
_DAMAGED_THROUGHOUT = 0.05  # the same where they are lost from end to end
_RUIN = 0.1  # of the declared length: a decode with errors that gives less is none
_NO_HEADER = "Header missing"  # of ffmpeg's mp3 decoder

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass
class Decoded:
    """A decoded file: what is true of it wherever it lies, and its waves."""

    sha256: str
    duration: float  # seconds of the decoded stream
    sample_rate: int  # Hz, of the file
    channels: int  # of the file
    decoder: str  # "soundfile 1.2.2" (the version of libsndfile) or "ffmpeg 7.0.2"
    flags: tp.List[str]  # sorted: clipped, damaged, length_unverified, over_range, silent, trailing_data, truncated ...
    declared: tp.Optional[float]  # seconds that the file's own headers say, None where they say nothing usable
    peak: float  # the largest magnitude of a sample, 1.0 is full scale; six digits
    samples: str  # sha256 of the samples as decoded
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
        with contextlib.ExitStack() as cleanup, sources.open_file(path) as source:
            plan = _Plan(wanted, scratch, spool_bytes, time.monotonic() + deadline, cleanup)
            stamp = sources.read_stamp(source)
            planned = (stamp[0] if size is None else size, stamp[1] if mtime_ns is None else mtime_ns)
            if not sources.is_same(stamp, planned):
                raise AudioError("changed", "changed since the job was planned; run again")
            digest.append(sources.hash_file(source))
            try:
                return _decode(source, plan, digest[0])
            finally:
                if not sources.is_same(sources.read_stamp(source), stamp):
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
            raise AudioError("decode", "a sample rate of {} Hz; 100 Hz to 4 MHz can be read".format(sample_rate))
        if not 1 <= channels <= CHANNELS:
            raise AudioError("decode", "{} channels; 1 to {} can be read".format(channels, CHANNELS))
        recorder = waves.Recorder((sample_rate, channels), self.formats, self.scratch, self.spool_bytes)
        self.cleanup.callback(recorder.close)
        return recorder


class _Take(tp.NamedTuple):
    """What one decoder made of the file."""

    recorder: waves.Recorder
    decoder: str
    talk: tp.Optional[ffmpeg.Talk] = None
    holey: bool = False  # it has gaps from end to end
    broken: bool = False  # the other decoder met an error behind the headers

    @property
    def seconds(self) -> float:
        return self.recorder.meter.frames / self.recorder.sample_rate

    @property
    def damaged(self) -> int:
        """Packets that could not be decoded."""
        return self.talk.damaged if self.talk else 0

    @property
    def is_holed(self) -> bool:
        """Whether a decoder met damage; tags between joined mp3 are packets without a header, and no audio."""
        return self.broken or (self.talk is not None and self.talk.damaged > 0 and self.talk.complaint != _NO_HEADER)


class _UnusableError(Exception):
    """One decoder cannot read the file; the other one may."""

    def __init__(self, reason: str, opened: bool = False) -> None:
        super().__init__(reason)
        self.opened = opened  # its headers were fine


def _decode(file: tp.BinaryIO, plan: _Plan, digest: str) -> Decoded:
    source = sources.look(file)
    take = _choose(source, plan)
    recorder, meter = take.recorder, take.recorder.meter
    if not meter.frames:
        raise AudioError("empty", "contains no audio samples")
    truncated = take.damaged > 0 if source.declared is None else not _is_whole(take, source.declared)
    longer = source.declared is not None and take.seconds > source.declared + source.slack
    flags = {
        "damaged": not truncated and take.is_holed and not _is_sound(source, plan),
        "other_tracks": source.others or (take.talk is not None and take.talk.tracks > 1),
        "length_unverified": source.declared is None,
        "trailing_data": source.surplus or longer,
        "truncated": truncated,
    }
    return Decoded(
        sha256=digest,
        duration=take.seconds,
        sample_rate=recorder.sample_rate,
        channels=recorder.channels,
        decoder=take.decoder,
        flags=sorted([*(flag for flag in flags if flags[flag]), *meter.flags()]),
        declared=source.data.seconds if source.data is not None and source.data.surplus else source.declared,
        peak=meter.shown_peak,
        samples=meter.sha256,
        _waves=recorder.finish(),
    )


def _is_whole(take: _Take, declared: float) -> bool:
    return take.seconds >= declared - TOLERANCE


def _choose(source: sources.AudioFile, plan: _Plan) -> _Take:
    """Return soundfile's result if it can be believed, otherwise the longer one of both decoders."""
    first: tp.Optional[_Take] = None
    declared, broken = source.declared, False
    try:
        first = _use_soundfile(source, plan)
        reason = "{:.3f} s".format(first.seconds)
    except _UnusableError as error:
        reason, broken = str(error), error.opened
    left = source.surplus and source.data is None  # the samples of a file of chunks are found without its header
    if first is not None and declared is not None and _is_whole(first, declared) and not left:
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
        _refuse_ruin(first, declared, str(error))
        return first
    best = second if first is None or second.seconds > first.seconds else first
    if not best.recorder.meter.frames and source.data is not None and source.data.subtype and source.data.length:
        return _use_soundfile(source, plan, alone=True)  # its header hides the samples from both
    _refuse_damage(second, best, declared)
    return best._replace(broken=broken)


def _refuse_damage(second: _Take, best: _Take, declared: tp.Optional[float]) -> None:
    """Raise where the account of ffmpeg's decode, the `second`, says that even the `best` is no audio."""
    talk = second.talk
    if talk is None or not (talk.damaged or talk.errors):
        return
    if talk.damaged > talk.packets * (_DAMAGED_THROUGHOUT if second.holey else _DAMAGED):
        text = "damaged from end to end: {} of {} packets cannot be decoded ({})"
        raise AudioError("decode", text.format(talk.damaged, talk.packets, talk.complaint))
    _refuse_ruin(best, declared, talk.complaint)


def _refuse_ruin(take: _Take, declared: tp.Optional[float], complaint: str) -> None:
    """Raise where a decoder that met errors gives next to nothing of what the file declares."""
    if declared is not None and take.seconds < _RUIN * declared:
        text = "damaged: {:.3f} s of the {:.3f} s that it declares can be decoded ({})"
        raise AudioError("decode", text.format(take.seconds, declared, complaint))


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Reads straight on. The base class seeks after every block, which spoils the next frames of an mp3."""

    def seekable(self) -> bool:
        return False


def _is_sound(source: sources.AudioFile, plan: _Plan) -> bool:
    """Return whether soundfile reads all that is declared: tags behind it, or another file, break off both decoders."""
    try:
        with _open_soundfile(source, False) as handle:
            left = int((source.declared or 0.0) * handle.samplerate + 0.5)
            read = left
            while read and time.monotonic() <= plan.deadline:
                read = len(handle.read(min(left, BLOCK), dtype="float32", always_2d=True))
                left -= read
            return source.declared is not None and not left
    except (RuntimeError, TypeError, ValueError):
        return False


def _use_soundfile(source: sources.AudioFile, plan: _Plan, alone: bool = False) -> _Take:
    """Decode with libsndfile, by descriptor: no name, no extension, no second look-up of the path.

    `alone` are the samples without the header.
    """
    if source.disguised:
        raise _UnusableError("DTS or AC-3 inside a PCM file")
    opened = False
    try:
        with _open_soundfile(source, alone) as handle:
            opened = True
            recorder = plan.record(handle.samplerate, handle.channels)
            _read_blocks(lambda: handle.read(BLOCK, dtype="float32", always_2d=True), recorder, plan.deadline)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, NotFiniteError):
            raise
        raise _UnusableError(str(getattr(error, "error_string", error)).rstrip("."), opened) from None
    return _Take(recorder, "soundfile " + soundfile.__libsndfile_version__)


def _open_soundfile(source: sources.AudioFile, alone: bool) -> _Forward:
    data = source.data
    if data is None or not (alone or data.length > data.declared):
        if source.start:
            length = sources.read_stamp(source.file)[0] - source.start
            return _Forward(sources.Window(source.file, [(source.start, length)]))
        os.lseek(source.file.fileno(), 0, os.SEEK_SET)
        return _Forward(source.file.fileno(), closefd=False)
    raw = {"format": "RAW", "subtype": data.subtype, "endian": "LITTLE" if data.order == "<" else "BIG"}
    return _Forward(sources.Window(source.file, data.spans), "r", int(data.rate), data.channels, **raw)


def _use_ffmpeg(source: sources.AudioFile, plan: _Plan) -> _Take:
    program, where = ffmpeg.find(), (source.file.fileno(), plan.deadline, source.codec, source.start)
    with contextlib.closing(ffmpeg.PcmStream(program, *where)) as stream:
        recorder = plan.record(stream.sample_rate, stream.channels)
        _read_blocks(lambda: stream.read(BLOCK), recorder, plan.deadline)
    if source.disguised and stream.talk.codec.startswith("pcm"):
        raise AudioError("decode", "holds DTS or AC-3 as if it were PCM, which ffmpeg does not recognise")
    return _Take(recorder, "ffmpeg " + ffmpeg.version(program), stream.talk, stream.gaps.everywhere)


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
