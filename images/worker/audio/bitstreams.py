"""DTS and AC-3 where a header says PCM: what discs and S/PDIF carry, recorded as if it were samples."""

import typing as tp

from worker.audio.chunks import Data

# sync words of DTS (16 and 14 bits, both orders) and of IEC 61937, which carries AC-3 and others
_SYNCS = (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8", b"\x72\xf8\x1f\x4e")
_AC3_SYNC = b"\x0b\x77"
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_PROBED = 1 << 17  # bytes in which a bitstream's frames are looked for
_FRAMES = 4  # that must follow each other at one distance; noise does not do that


def find_bitstream(source: tp.BinaryIO, data: Data) -> tp.Optional[int]:
    """Return the byte at which DTS, or AC-3 and its like in IEC 61937, begins in what is declared as PCM.

    That is how discs and S/PDIF carry it. None: it is PCM.
    """
    if data.tag != 1 or data.bits != 16 or data.channels < 2:
        return None
    source.seek(data.start)
    head = source.read(min(_PROBED, data.length))
    swapped = bytearray(len(head) // 2 * 2)
    swapped[::2], swapped[1::2] = head[1::2], head[: len(swapped) : 2]
    found = [_find_beat(head, sync) for sync in _SYNCS] + [_find_ac3(head), _find_ac3(bytes(swapped))]
    return min((first for first in found if first is not None), default=None)


def _find_beat(head: bytes, sync: bytes) -> tp.Optional[int]:
    first = head.find(sync)
    second = head.find(sync, first + 4) if first >= 0 else -1
    step = second - first
    beats = second > 0 and all(head.startswith(sync, first + n * step) for n in range(2, _FRAMES))
    return first if beats else None


def _find_ac3(head: bytes) -> tp.Optional[int]:
    first = head.find(_AC3_SYNC)
    while first >= 0:
        at = first
        for _ in range(_FRAMES):
            at += _measure_ac3(head[at : at + 6]) or len(head)
        if at < len(head):
            return first
        first = head.find(_AC3_SYNC, first + 1)
    return None


def _measure_ac3(head: bytes) -> int:
    """Return the bytes of the frame that begins here (ETSI TS 102 366, 4.4.1 and E.1.3.1), 0 where none does."""
    if head[:2] != _AC3_SYNC or len(head) < 6:
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    clock, code = head[4] >> 6, head[4] & 63
    if clock == 3 or code >= 2 * len(_AC3_KBITS):
        return 0
    kbits = _AC3_KBITS[code >> 1]
    return (4 * kbits, 2 * (kbits * 960 // 441 + code % 2), 6 * kbits)[clock]
