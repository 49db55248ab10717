"""How long an audio file claims to be, read from its own headers and never from a decoder.

Decoders end early without a word (libsndfile: an mp3 without a Xing header, chained Ogg, a WAV whose
data size is 0), so a decode is believed only if something else agrees with its length. These readers
know just enough of each format for that; whatever they do not understand has no declared duration.
"""

import io
import math
import struct
import typing as tp

from worker.audio import chunks, mpeg, ogg

_ID3_SEARCH = 1 << 20  # bytes of junk in front of an mp3 that are searched for its first frame


def declared_duration(source: tp.BinaryIO) -> tp.Optional[float]:
    """Return the seconds that a regular file declares, or None where it declares nothing usable; moves its position."""
    try:
        seconds = _measure(source)
    except (struct.error, IndexError, KeyError, OverflowError, ZeroDivisionError):
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None


def _measure(source: tp.BinaryIO) -> tp.Optional[float]:
    size = source.seek(0, io.SEEK_END)
    start = chunks.skip_id3(source)
    source.seek(start)
    magic = source.read(12)
    data = chunks.find_data(source)
    if data is not None or (chunks.is_chunked(magic) and magic[:4] != b"caff"):
        return data and data.all_seconds
    if magic[:4] == b"fLaC":
        source.seek(start)
        return _parse_flac(source.read(42))
    if magic[4:8] == b"ftyp":
        return mpeg.measure_mp4(source, size)
    if magic[:4] == b"OggS":
        return ogg.measure(source, size).seconds
    if magic[:4] == b"caff":
        return _measure_caf(source, size)
    buried = mpeg.find_buried(source, start)
    first = buried if buried is not None else mpeg.find_frame(source, start, min(size, start + _ID3_SEARCH))
    return None if first is None else mpeg.measure_mp3(source, first, size)


def _measure_caf(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    """Apple CAF: constant packets are counted by bytes, others by the packet table."""
    rate, packet_bytes, packet_frames, start = 0.0, 0, 0, 8
    while start + 12 <= size:
        source.seek(start)
        name, length = struct.unpack(">4sq", source.read(12))
        if name == b"desc":
            rate, packet_bytes, packet_frames = struct.unpack(">d8xII", source.read(24))
        if name == b"pakt":
            packets, frames, priming, rest = struct.unpack(">qqii", source.read(24))
            if packet_frames and frames == packets * packet_frames and not priming and not rest:
                frames -= packet_frames - 1  # whole packets were counted, and the last one may be cut short
            return float(frames) / rate
        if name == b"data" and packet_bytes:
            length = size - start - 12 if length < 0 else length
            frames = (length - 4) // packet_bytes * packet_frames  # 4: an edit count
            return float(frames) / float(rate)
        if length < 0:
            return None
        start += 12 + length
    return None


def _parse_flac(head: bytes) -> tp.Optional[float]:
    """Return total samples over rate from STREAMINFO (RFC 9639, 8.2); 0 samples mean unknown."""
    packed = struct.unpack(">Q", head[18:26])[0]
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return float(samples / rate) if samples else None
