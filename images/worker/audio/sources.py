"""An audio file as it lies there: opened once, hashed, and what its headers say before any decoder is asked."""

import hashlib
import math
import os
import stat
import typing as tp

from worker.audio import bitstreams, chunks, durations, mpeg, ogg, trailing
from worker.errors import AudioError

EXACT = 0.05  # seconds by which a decode may differ from what is declared
_LOOSE, _LOOSE_SHARE = 0.5, 0.05  # the same, of formats that count frames of their encoder: seconds, and of the whole
_UNITS = (100, 10**3, 10**6, 10**7, 10**9, 2 * 10**9)  # ns in which file systems and shares keep times
_LOOKALIKES = (
    (b"version https://git-lfs", "is a git-lfs pointer and not the audio itself; run `git lfs pull`"),
    (b"<!doctype html", "is an HTML page and not audio; download it again"),
    (b"<html", "is an HTML page and not audio; download it again"),
)


class AudioFile(tp.NamedTuple):
    """An open file, and what its headers say."""

    file: tp.BinaryIO
    declared: tp.Optional[float]  # seconds of what can be read
    data: tp.Optional[chunks.Data]  # where it is a file of chunks
    disguised: bool  # what is declared as PCM is something else
    codec: str  # of ffmpeg's decoders the one to take, empty: its own choice
    surplus: bool = False  # audio stands behind the declared end
    slack: float = 0.0  # seconds by which a decode may be longer than declared
    start: int = 0  # byte at which decoders begin: behind a tag that claims to cover the audio
    others: bool = False  # it is Ogg and has more audio streams side by side


def open_file(path: str) -> tp.BinaryIO:
    """Open a regular file; everything else could block for ever, never end, or do something."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise AudioError("unreadable", "is not a regular file")
    source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 1 << 16)
    if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
        source.close()
        raise AudioError("changed", "is no longer a regular file")
    return source


def read_stamp(source: tp.BinaryIO) -> tp.Tuple[int, int]:
    """Return the size and the modification time, by which a change shows."""
    status = os.fstat(source.fileno())
    return status.st_size, status.st_mtime_ns


def is_same(one: tp.Tuple[int, int], other: tp.Tuple[int, int]) -> bool:
    """Return whether two stamps are of the same file: a share may keep times in a coarser unit than it first said."""
    (size, time_ns), (other_size, other_ns) = one, other
    rounded = any(
        abs(time_ns - other_ns) < unit and (time_ns % unit == 0) != (other_ns % unit == 0)
        for unit in _UNITS
        if time_ns % 10**9 or other_ns % 10**9
    )
    return size == other_size and (time_ns == other_ns or rounded)


def hash_file(source: tp.BinaryIO) -> str:
    """Return the sha256 of all that follows."""
    digest = hashlib.sha256()
    for chunk in iter(lambda: source.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()


def look(file: tp.BinaryIO) -> AudioFile:
    """Read the headers.

    Raises:
        AudioError: it is encrypted.
    """
    _refuse_lookalikes(file)
    scheme = mpeg.find_encryption(file)
    if scheme:
        raise AudioError("decode", "is encrypted ({}); only an unprotected copy of it can be read".format(scheme))
    declared = durations.declared_duration(file)
    data = chunks.find_data(file)
    lead = None if data is None else bitstreams.find_bitstream(file, data)
    if lead and data and declared is not None:  # silence that no decoder of the stream gives
        declared -= declared * lead / data.length
    if data and data.more and (lead is not None or not data.subtype):
        raise AudioError("decode", "its samples stand in several chunks, which no decoder joins; write it anew as one")
    codec = "libspeex" if ogg.is_wideband_speex(file) else ""  # ffmpeg's own gives everything twice
    left = data.surplus if data else trailing.is_left(file)
    buried = 0 if data else mpeg.find_buried(file, chunks.skip_id3(file)) or 0
    slack = math.inf if lead is not None else _find_slack(file, declared, data)
    return AudioFile(file, declared, data, lead is not None, codec, left, slack, buried, trailing.has_others(file))


def _find_slack(file: tp.BinaryIO, declared: tp.Optional[float], data: tp.Optional[chunks.Data]) -> float:
    """Return the seconds by which a decode of a healthy file may be longer than it declares.

    Headers of uncompressed audio and of FLAC are exact; others leave out what encoders put around it.
    """
    if data is not None:
        return EXACT if data.is_plain else math.inf
    size = file.seek(0, os.SEEK_END)
    file.seek(chunks.skip_id3(file))
    magic = file.read(4)
    if magic == b"OggS" and ogg.measure(file, size).cut:
        return math.inf
    return EXACT if magic == b"fLaC" else max(_LOOSE, _LOOSE_SHARE * (declared or 0.0))


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


class Window:
    """Parts of a file as if they were one, for libsndfile to read: the samples without a header that is wrong."""

    def __init__(self, file: tp.BinaryIO, spans: tp.Sequence[tp.Tuple[int, int]]) -> None:
        self._file, self._spans = file.fileno(), spans
        self._length = sum(length for _, length in spans)
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the parts."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position within the parts."""
        return self._at

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        found, begin = b"", 0
        for start, length in self._spans:
            offset = self._at - begin
            wanted = min(size - len(found), length - offset)
            if offset >= 0 and wanted > 0:  # by place: other decoders have moved the file's position
                part = os.pread(self._file, wanted, start + offset)
                found += part
                self._at += len(part)
            begin += length
        return found
