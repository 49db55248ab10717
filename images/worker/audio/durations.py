"""How long an audio file claims to be, read from its own headers and never from a decoder.

Decoders end early without a word (libsndfile: an mp3 without a Xing header, chained Ogg, a WAV whose
data size is 0), so a decode is believed only if something else agrees with its length. These readers
know just enough of each format for that; whatever they do not understand has no declared duration.
"""

import io
import math
import struct
import typing as tp

from worker.audio import mpeg

_ENDLESS = (0, 0xFFFFFFFF)  # sizes that a program writes when it cannot seek back to the header
_PCM_TAGS = (1, 3, 6, 7, 0xFFFE)  # integer, float, A-law, mu-law, extensible: whole bytes per sample
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_ID3_SEARCH = 1 << 20  # bytes of junk in front of an mp3 that are searched for its first frame
_PAGE_FLAG_FIRST = 2

_Chunk = tp.Tuple[bytes, int, int]  # name, where the contents start, declared length in bytes


def declared_duration(source: tp.BinaryIO) -> tp.Optional[float]:
    """Return the seconds that a regular file declares, or None where it declares nothing usable; moves its position."""
    try:
        seconds = _measure(source)
    except (struct.error, IndexError, KeyError, OverflowError, ZeroDivisionError):
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None


def _measure(source: tp.BinaryIO) -> tp.Optional[float]:
    size = source.seek(0, io.SEEK_END)
    start = _skip_id3(source)
    source.seek(start)
    magic = source.read(12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
        return _measure_wav(source, size, ">" if magic[:4] == b"RIFX" else "<")
    if magic[:4] == b"riff":
        return _measure_w64(source, size)
    if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
        return _measure_aiff(source, size)
    if magic[:4] == b"fLaC":
        source.seek(start)
        return _parse_flac(source.read(42))
    if magic[4:8] == b"ftyp":
        return mpeg.measure_mp4(source, size)
    measure = {b"OggS": _measure_ogg, b".snd": _measure_au, b"caff": _measure_caf}.get(magic[:4])
    if measure is not None:
        return measure(source, size)
    first = mpeg.find_frame(source, start, min(size, start + _ID3_SEARCH))
    return None if first is None else mpeg.measure_mp3(source, first, size)


def _skip_id3(source: tp.BinaryIO) -> int:
    """Return where the data behind all ID3v2 tags starts; their sizes have 7 bits per byte."""
    start = 0
    while True:
        source.seek(start)
        head = source.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return start
        start += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])


_CHUNKS = 4096  # more than any real file has


def _find_chunks(source: tp.BinaryIO, start: int, size: int, order: str) -> tp.Iterator[_Chunk]:
    """Yield the chunks of a RIFF or IFF file; gigabytes of zeros must not be walked as empty chunks."""
    for _ in range(_CHUNKS):
        if start + 8 > size:
            return
        source.seek(start)
        name, length = struct.unpack(order + "4sI", source.read(8))
        yield name, start + 8, length
        start += 8 + length + length % 2


def _measure_wav(source: tp.BinaryIO, size: int, order: str) -> tp.Optional[float]:
    form, samples, wide = b"", 0, 0
    for name, start, length in _find_chunks(source, 12, size, order):
        source.seek(start)
        if name == b"ds64":
            wide = struct.unpack("<8xQ", source.read(16))[0]
        elif name == b"fmt ":
            form = source.read(16)
        elif name == b"fact":
            samples = struct.unpack(order + "I", source.read(4))[0]
        elif name == b"data":
            if length in _ENDLESS:
                length = wide or _find_rest(source, start, size, order)
            return _divide_wav(form, samples, length, order)
    return None


def _find_rest(source: tp.BinaryIO, start: int, size: int, order: str) -> int:
    """Return the length of a data chunk of unknown size: all that follows, unless that is more chunks."""
    end = start
    for name, contents, length in _find_chunks(source, start, size, order):
        if not name.isalnum() and not name.strip().isalnum():
            return size - start
        end = contents + length + length % 2
    return 0 if start < end == size else size - start


def _divide_wav(form: bytes, samples: int, length: int, order: str) -> float:
    """Return seconds from the `fmt ` chunk, the `fact` chunk's samples and the bytes of data.

    The block size is not used: where files contradict themselves it is what is wrong. For compressed
    data the byte rate is rounded and `fact` exact, unless libsndfile wrote it for two channels (half).
    """
    tag, channels, rate, byte_rate, _, bits = struct.unpack(order + "HHIIHH", form)
    if tag in _PCM_TAGS:
        return length / float(channels * ((bits + 7) // 8) * rate)
    exact, rounded = samples / float(rate), length / float(byte_rate)
    return exact if abs(exact - rounded) < 0.05 * rounded else rounded


def _measure_w64(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    """Sony Wave64: RIFF with 16-byte names, and 8-byte sizes that include the chunk's 24-byte head."""
    form, start = b"", 40
    while start + 24 <= size:
        source.seek(start)
        name, length = struct.unpack("<16sQ", source.read(24))
        if name[:4] == b"fmt ":
            form = source.read(16)
        if name[:4] == b"data":
            known = 24 <= length < 1 << 63
            return _divide_wav(form, 0, length - 24 if known else size - start - 24, "<")
        start += max(24, length + -length % 8)
    return None


def _measure_aiff(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    for name, start, _ in _find_chunks(source, 12, size, ">"):
        if name == b"COMM":
            source.seek(start)
            frames, exponent, mantissa = struct.unpack(">2xI2xHQ", source.read(18))
            rate = math.ldexp(float(mantissa), int(exponent & 0x7FFF) - 16383 - 63)  # an 80-bit float
            return float(frames) / rate
    return None


def _measure_au(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    source.seek(4)
    start, length, encoding, rate, channels = struct.unpack(">5I", source.read(20))
    length = size - start if length in _ENDLESS else length
    return float(length) / float(_AU_BYTES[encoding] * channels * rate)


def _measure_caf(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    """Apple CAF: constant packets are counted by bytes, others by the packet table."""
    rate, packet_bytes, packet_frames, start = 0.0, 0, 0, 8
    while start + 12 <= size:
        source.seek(start)
        name, length = struct.unpack(">4sq", source.read(12))
        if name == b"desc":
            rate, packet_bytes, packet_frames = struct.unpack(">d8xII", source.read(24))
        if name == b"pakt":
            return float(struct.unpack(">8xq", source.read(16))[0]) / rate
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


class _Stream(tp.NamedTuple):
    """One logical audio stream in an Ogg file."""

    rate: int  # granules per second
    skipped: int  # granules of encoder delay (Opus: pre-skip)


def _parse_ogg_head(packet: bytes) -> tp.Optional[_Stream]:
    """Return the stream that a first page's packet announces; None for video and other company."""
    if packet[:7] == b"\x01vorbis":
        return _Stream(struct.unpack("<I", packet[12:16])[0], 0)
    if packet[:8] == b"OpusHead":
        return _Stream(48000, struct.unpack("<H", packet[10:12])[0])
    if packet[:5] == b"\x7fFLAC":
        return _Stream(struct.unpack(">Q", packet[27:35])[0] >> 44, 0)
    if packet[:8] == b"Speex   ":
        return _Stream(struct.unpack("<I", packet[36:40])[0], 0)
    return None


def _measure_ogg(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    """Add up the last granule positions (RFC 3533) of chained streams, the first audio of each link."""
    seconds: tp.Dict[int, float] = {}
    streams: tp.Dict[int, _Stream] = {}
    fresh, position = False, 0  # fresh: only first pages since the link began
    while position + 27 <= size:
        source.seek(position)
        head = source.read(27)
        if head[:4] != b"OggS":
            position = _find_page(source, position + 1, size)
            continue
        flags, granule, serial, count = struct.unpack("<5xBqI8xB", head)
        table = source.read(count)
        if flags & _PAGE_FLAG_FIRST:
            stream = _parse_ogg_head(source.read(min(sum(table), 64)))
            if stream is not None and not (fresh and streams):
                streams, seconds[position] = {serial: stream}, 0.0
            fresh = True
        else:
            fresh = False
            if serial in streams and granule >= 0:
                seconds[max(seconds)] = max(granule - streams[serial].skipped, 0) / streams[serial].rate
        position += 27 + count + sum(table)
    return sum(seconds.values()) if seconds else None


def _find_page(source: tp.BinaryIO, start: int, size: int) -> int:
    """Return the position of the next Ogg page at or behind `start`, or `size`."""
    while start < size:
        source.seek(start)
        at = source.read(1 << 16).find(b"OggS")
        if at >= 0:
            return start + at
        start += (1 << 16) - 3
    return size
