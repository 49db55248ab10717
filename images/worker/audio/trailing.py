"""Audio behind what the headers of FLAC, Ogg and mp4 declare, which decoders leave without a word."""

import io
import re
import struct
import typing as tp

from worker.audio import chunks, mpeg, ogg

_TAIL = 1 << 18  # bytes at the end of a FLAC in which its last frames are looked for
_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}


def is_left(source: tp.BinaryIO) -> bool:
    """Return whether audio stands behind the declared end; moves the position."""
    size = source.seek(0, io.SEEK_END)
    start = chunks.skip_id3(source)
    source.seek(start)
    head = source.read(42)
    try:
        if head[:4] == b"fLaC":
            source.seek(max(start, size - _TAIL))
            return _find_flac_end(source.read(_TAIL), head) > _read_flac_total(head) > 0
        if head[:4] == b"OggS":
            return ogg.measure(source, size).stuck
        return head[4:8] == b"ftyp" and mpeg.is_joined(source, size)
    except (struct.error, IndexError, KeyError, ZeroDivisionError):
        return False


def has_others(source: tp.BinaryIO) -> bool:
    """Return whether an Ogg file has more audio streams side by side; moves the position."""
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    try:
        return source.read(4) == b"OggS" and ogg.measure(source, size).others > 0
    except (struct.error, IndexError, KeyError, ZeroDivisionError):
        return False


def _read_flac_total(head: bytes) -> int:
    return int(struct.unpack(">Q", head[18:26])[0] & (1 << 36) - 1)


def _find_flac_end(tail: bytes, head: bytes) -> int:
    """Return the sample at which the last two frames that follow on each other end, 0 where there are none.

    One alone may be chance: its header has a checksum of 8 bits.
    """
    largest = struct.unpack(">H", head[10:12])[0]
    end, due = 0, -1
    for found in re.finditer(b"\xff[\xf8\xf9]", tail):
        frame = _parse_flac_frame(tail[found.start() : found.start() + 16], largest)
        if frame is None:
            continue
        begin, length = frame
        if begin == due:
            end = begin + length
        due = begin + length
    return end


def _parse_flac_frame(head: bytes, block: int) -> tp.Optional[tp.Tuple[int, int]]:
    """Return the first sample of the frame that begins here, and how many it has (RFC 9639, 9.1); None: none does."""
    if len(head) < 16 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    ones = next((n for n in range(8) if not head[4] & 128 >> n), 8)
    if ones == 1 or ones == 8:
        return None
    number, at = head[4] & (127 >> ones), 5
    for byte in head[5 : 4 + max(1, ones)]:
        number, at = number << 6 | byte & 63, at + 1
    code = head[2] >> 4
    length = _BLOCKS.get(code, 0)
    if code in (6, 7):
        length = 1 + (head[at] if code == 6 else struct.unpack(">H", head[at : at + 2])[0])
    at += (code == 6) + 2 * (code == 7) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if not length or _sum(head[:at]) != head[at]:
        return None
    return (number if head[1] & 1 else number * block), length


def _sum(data: bytes) -> int:
    """Return the CRC-8 of a frame's header."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 7 * (value >> 7)) & 255
    return value
