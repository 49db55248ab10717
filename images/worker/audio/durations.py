"""How long an audio file claims to be, read from its own headers and never from a decoder.

Decoders end early without a word (libsndfile: an mp3 without a Xing header, chained Ogg, a WAV whose
data size is 0), so a decode is believed only if something else agrees with its length. These readers
know just enough of each format for that; whatever they do not understand has no declared duration.
"""

import io
import math
import struct
import typing as tp

from worker.audio import chunks, mpeg

_ID3_SEARCH = 1 << 20  # bytes of junk in front of an mp3 that are searched for its first frame
_PAGE_FLAG_FIRST = 2


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
    measure = {b"OggS": _measure_ogg, b"caff": _measure_caf}.get(magic[:4])
    if measure is not None:
        return measure(source, size)
    first = mpeg.find_frame(source, start, min(size, start + _ID3_SEARCH))
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


class _Stream(tp.NamedTuple):
    """One logical audio stream in an Ogg file."""

    rate: int  # granules per second
    skipped: int  # granules of encoder delay (Opus: pre-skip)
    longest: int  # granules that one packet may add; 0: its first byte says how many (Opus)


def _parse_ogg_head(packet: bytes) -> tp.Optional[_Stream]:
    """Return the stream that a first page's packet announces; None for video and other company."""
    if packet[:7] == b"\x01vorbis":
        return _Stream(struct.unpack("<I", packet[12:16])[0], 0, (1 << (packet[28] >> 4)) >> 1)
    if packet[:8] == b"OpusHead":
        return _Stream(48000, struct.unpack("<H", packet[10:12])[0], 0)
    if packet[:5] == b"\x7fFLAC":
        return _Stream(struct.unpack(">Q", packet[27:35])[0] >> 44, 0, struct.unpack(">H", packet[19:21])[0])
    if packet[:8] == b"Speex   ":
        rate, samples, frames = struct.unpack("<I16xI4xI", packet[36:68])
        return _Stream(rate, 0, samples * max(1, frames))
    return None


def is_wideband_speex(source: tp.BinaryIO) -> bool:
    """Return whether a file is Ogg with Speex at more than 8 kHz, by the mode in its first packet."""
    source.seek(0)
    head = source.read(128)
    packet = head[head.find(b"Speex   ") :]
    return head[:4] == b"OggS" and len(packet) >= 44 and packet[:5] == b"Speex" and packet[40:44] != bytes(4)


def _measure_opus_packet(packet: bytes) -> int:
    """Return the samples of a packet at 48 kHz, by its first two bytes (RFC 6716, 3.1)."""
    kind, code = packet[0] >> 3, packet[0] & 3
    if kind < 12:
        length = (480, 960, 1920, 2880)[kind & 3]
    else:
        length = (480, 960)[kind & 1] if kind < 16 else 120 << (kind & 3)
    return length * (packet[1] & 63 if code == 3 else 1 + (code > 0))


def _measure_ogg(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    """Add up the granules (RFC 3533) of chained streams, the first audio of each link, each from where it begins."""
    seconds: tp.Dict[int, float] = {}
    streams: tp.Dict[int, _Stream] = {}
    begun: tp.Dict[int, int] = {}  # granules before the first page with audio
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
            stream = _parse_ogg_head(source.read(min(sum(table), 80)))
            if stream is not None and not (fresh and streams):
                streams, seconds[position], begun = {serial: stream}, 0.0, {}
            fresh = True
        else:
            fresh = False
            if serial in streams and granule > 0:
                stream = streams[serial]
                if serial not in begun:
                    begun[serial] = _find_begin(stream, granule, table, source.read(2))
                seconds[max(seconds)] = max(granule - begun[serial] - stream.skipped, 0) / stream.rate
        position += 27 + count + sum(table)
    return sum(seconds.values()) if seconds else None


def _find_begin(stream: _Stream, granule: int, table: bytes, packet: bytes) -> int:
    """Return the granule from which a stream counts: 0, or that of its first page with audio.

    What was cut out of a running stream (an Internet radio's) goes on counting, and its first page ends at more
    than it can hold. What that page does hold is left out, as only its decoder would know.
    """
    packets = sum(lacing < 255 for lacing in table)
    longest = stream.longest or _measure_opus_packet(packet)
    return granule if granule > packets * longest else 0


def _find_page(source: tp.BinaryIO, start: int, size: int) -> int:
    """Return the position of the next Ogg page at or behind `start`, or `size`."""
    while start < size:
        source.seek(start)
        at = source.read(1 << 16).find(b"OggS")
        if at >= 0:
            return start + at
        start += (1 << 16) - 3
    return size
