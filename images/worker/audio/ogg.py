"""How long Ogg claims to be, by the granules of its pages (RFC 3533), and whether these can be."""

import struct
import typing as tp

_PAGE_FLAG_FIRST, _PAGE_FLAG_LAST = 2, 4
_STUCK = 3  # pages with audio that do not get ahead
_BACK = 0.05  # seconds that a last page may take off what came before


class Account(tp.NamedTuple):
    """What the pages say."""

    seconds: tp.Optional[float]
    stuck: bool  # pages with audio do not count on: there is more than they declare
    cut: bool  # out of a running stream; its first page is not in `seconds`
    others: int  # audio streams beside the first


class _Stream(tp.NamedTuple):
    """One logical audio stream in an Ogg file."""

    rate: int  # granules per second
    skipped: int  # granules of encoder delay (Opus: pre-skip)
    longest: int  # granules that one packet may add; 0: its first byte says how many (Opus)


def _parse_head(packet: bytes) -> tp.Optional[_Stream]:
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


def measure(source: tp.BinaryIO, size: int) -> Account:
    """Add up the granules (RFC 3533) of chained streams, the first audio of each link, each from where it begins."""
    seconds: tp.Dict[int, float] = {}
    streams: tp.Dict[int, _Stream] = {}
    begun: tp.Dict[int, int] = {}  # granules before the first page with audio
    reached = stuck = others = 0
    cut = fresh = False  # fresh: only first pages since the link began
    for position, flags, granule, serial, table in _find_pages(source, size):
        if flags & _PAGE_FLAG_FIRST:
            stream = _parse_head(source.read(min(sum(table), 80)))
            if stream is not None and not (fresh and streams):
                streams, seconds[position], begun, reached = {serial: stream}, 0.0, {}, 0
            else:
                others += stream is not None
            fresh = True
            continue
        fresh = False
        if serial in streams and granule > 0:
            stream = streams[serial]
            if serial not in begun:
                begun[serial] = _find_begin(stream, granule, table, source.read(2))
                cut = cut or begun[serial] > 0
            stuck += granule <= reached and not flags & _PAGE_FLAG_LAST
            stuck += _STUCK * (granule < reached - _BACK * stream.rate)
            reached = granule
            seconds[max(seconds)] = max(granule - begun[serial] - stream.skipped, 0) / stream.rate
    return Account(sum(seconds.values()) if seconds else None, stuck >= _STUCK, cut, others)


def _find_pages(source: tp.BinaryIO, size: int) -> tp.Iterator[tp.Tuple[int, int, int, int, bytes]]:
    """Yield position, flags, granule, serial number and lacing of each page; the file stands at its contents."""
    position = 0
    while position + 27 <= size:
        source.seek(position)
        head = source.read(27)
        if head[:4] != b"OggS":
            position = _find_page(source, position + 1, size)
            continue
        flags, granule, serial, count = struct.unpack("<5xBqI8xB", head)
        table = source.read(count)
        yield position, flags, granule, serial, table
        position += 27 + count + sum(table)


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
