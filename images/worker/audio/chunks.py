"""Where the samples of a file of chunks stand (WAV, RF64, Wave64, AIFF), whatever its header says of their number.

A header is written before the samples are known, and its sizes have 32 bits: a program that cannot seek back leaves
a placeholder, and behind 4 GiB the size wraps. So what is declared is held against what the file has.
"""

import io
import math
import struct
import typing as tp

PCM_TAGS = (1, 3, 6, 7, 0xFFFE)  # integer, float, A-law, mu-law, extensible: whole bytes per sample
# of WAV tags and bits; the unsigned byte is WAV's own
SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
_AIFF_KINDS = {b"fl32": 3, b"FL32": 3, b"fl64": 3, b"FL64": 3, b"alaw": 6, b"ALAW": 6, b"ulaw": 7, b"ULAW": 7}
_AIFF_PLAIN = (b"NONE", b"twos", b"sowt", b"in24", b"in32")
_AIFF_ENDLESS = 0x7E000000  # bytes; sox declares as many frames as fit into 7F000000 where it cannot seek
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # of mp3, which some programs put behind anything
_FILES = (b"RIFF", b"RIFX", b"RF64", b"FORM")  # another file, joined behind this one
_NAMES = (
    b"LIST",
    b"id3 ",
    b"ID3 ",
    b"bext",
    b"cue ",
    b"smpl",
    b"iXML",
    b"PEAK",
    b"JUNK",
    b"COMM",
    b"ANNO",
)  # cut or not
_SHORTEST = 0.05  # seconds; fewer samples behind the declared end are padding
_PADDING = 1 << 20  # bytes of zeros that are padding, too
_CHUNKS = 4096  # more than any real file has
# sync words of DTS (16 and 14 bits, both orders) and of IEC 61937, which carries AC-3 and others
_SYNCS = (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8", b"\x72\xf8\x1f\x4e")
_AC3_SYNC = b"\x0b\x77"
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_PROBED = 1 << 17  # bytes in which a bitstream's frames are looked for
_FRAMES = 4  # that must follow each other at one distance; noise does not do that

_Chunk = tp.Tuple[bytes, int, int]  # name, where the contents start, declared length in bytes


class Data(tp.NamedTuple):
    """The samples of a file: their format, and where they are."""

    tag: int  # as in WAV: 1 integer, 3 float, 6 A-law, 7 mu-law; 0 where AIFF has no such word
    channels: int
    rate: float  # Hz
    bits: int  # per sample
    order: str  # "<" or ">"
    start: int  # of the file's bytes
    length: int  # bytes that can be read
    declared: int  # bytes that the header says, or as many as there are where it says nothing usable
    seconds: float  # of what is declared; of compressed data as exactly as it can be known
    surplus: bool = False  # samples stand behind the declared end
    block: int = 0  # bytes per frame, as declared
    iff: bool = False  # of AIFF: its single bytes are signed, and its chunks big-endian whatever its samples

    @property
    def all_seconds(self) -> float:
        """Of what can be read."""
        return self.seconds * self.length / self.declared if self.surplus else self.seconds

    @property
    def subtype(self) -> str:
        """What libsndfile calls such samples; empty: without their header they mean nothing."""
        if self.block != self.channels * self.bits // 8 or self.rate != int(self.rate):
            return ""
        return "PCM_S8" if self.iff and (self.tag, self.bits) == (1, 8) else SUBTYPES.get((self.tag, self.bits), "")


def skip_id3(source: tp.BinaryIO) -> int:
    """Return where the data behind all ID3v2 tags starts; their sizes have 7 bits per byte."""
    start = 0
    while True:
        source.seek(start)
        head = source.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return start
        start += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])


def is_chunked(magic: bytes) -> bool:
    """Return whether twelve bytes begin a file that `find_data` reads."""
    wav = magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE"
    return wav or magic[:4] == b"riff" or (magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"))


def find_data(source: tp.BinaryIO) -> tp.Optional[Data]:
    """Return the samples of a file of chunks, None for others and broken ones; moves the position."""
    size = source.seek(0, io.SEEK_END)
    start = skip_id3(source)
    source.seek(start)
    magic = source.read(12)
    if not is_chunked(magic):
        return None
    try:
        if magic[:4] == b"riff":
            return _find_w64(source, start, size)
        if magic[:4] == b"FORM":
            return _find_aiff(source, start, size)
        return _find_wav(source, start, size, ">" if magic[:4] == b"RIFX" else "<")
    except (struct.error, IndexError, OverflowError, ZeroDivisionError):
        return None


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


def is_placeholder(size: int) -> bool:
    """Return whether a data size is one that programs write when they cannot seek back to the header.

    0 and -1; sox has 7FFFF000, arecord 80000000, others what leaves room for a header below 2 or 4 GiB.
    """
    return size == 0 or 0x7FFF0000 <= size <= 0x80010000 or 0xFFFF0000 <= size <= 0xFFFFFFFF or size >= 1 << 60


def _find_chunks(source: tp.BinaryIO, start: int, size: int, order: str) -> tp.Iterator[_Chunk]:
    """Yield the chunks of a RIFF or IFF file; gigabytes of zeros must not be walked as empty chunks."""
    for _ in range(_CHUNKS):
        if start + 8 > size:
            return
        source.seek(start)
        name, length = struct.unpack(order + "4sI", source.read(8))
        yield name, start + 8, length
        start += 8 + length + length % 2


def _find_wav(source: tp.BinaryIO, begin: int, size: int, order: str) -> tp.Optional[Data]:
    form, samples, wide = b"", 0, 0
    for name, start, length in _find_chunks(source, begin + 12, size, order):
        source.seek(start)
        if name == b"ds64":
            wide = struct.unpack("<8xQ", source.read(16))[0]
        elif name == b"fmt ":
            form = source.read(min(length, 40))
        elif name == b"fact":
            samples = struct.unpack(order + "I", source.read(4))[0]
        elif name == b"data":
            if length in (0, 0xFFFFFFFF):
                length = wide if 0 < wide < 1 << 60 else _find_rest(source, start, size, order)
            elif is_placeholder(length) and start + length > size:
                length = size - start
            return _look_behind(source, _describe(form, samples, start, length, order), size)
    return None


def _find_rest(source: tp.BinaryIO, start: int, size: int, order: str) -> int:
    """Return the length of a data chunk of unknown size: all that follows, unless that is more chunks."""
    end = start
    for name, contents, length in _find_chunks(source, start, size, order):
        if not name.isalnum() and not name.strip().isalnum():
            return size - start
        end = contents + length + length % 2
    return 0 if start < end == size else size - start


def _find_w64(source: tp.BinaryIO, begin: int, size: int) -> tp.Optional[Data]:
    """Sony Wave64: RIFF with 16-byte names, and 8-byte sizes that include the chunk's 24-byte head."""
    form, start = b"", begin + 40
    while start + 24 <= size:
        source.seek(start)
        name, length = struct.unpack("<16sQ", source.read(24))
        if name[:4] == b"fmt ":
            form = source.read(40)
        if name[:4] == b"data":
            known = 24 <= length < 1 << 60 and not (is_placeholder(length - 24) and start + length > size)
            data = _describe(form, 0, start + 24, length - 24 if known else size - start - 24, "<")
            return _look_behind(source, data, size, 8)
        start += max(24, length + -length % 8)
    return None


def _describe(form: bytes, samples: int, start: int, length: int, order: str) -> Data:
    """Return the samples from the `fmt ` chunk, the `fact` chunk's samples and the bytes of data.

    The block size is not used: where files contradict themselves it is what is wrong. For compressed
    data the byte rate is rounded and `fact` exact, unless libsndfile wrote it for two channels (half).
    """
    tag, channels, rate, byte_rate, block, bits = struct.unpack(order + "HHIIHH", form[:16])
    if tag in PCM_TAGS:
        seconds = length / float(channels * ((bits + 7) // 8) * rate)
    else:
        exact, rounded = samples / float(rate), length / float(byte_rate)
        seconds = exact if abs(exact - rounded) < 0.05 * rounded else rounded
    if tag == 0xFFFE and len(form) >= 26:
        tag = struct.unpack(order + "H", form[24:26])[0]
    return Data(tag, channels, float(rate), bits, order, start, length, length, seconds, block=block)


def _find_aiff(source: tp.BinaryIO, begin: int, size: int) -> tp.Optional[Data]:
    channels, bits, frames, rate, kind, start, stated = 0, 0, 0, 0.0, b"NONE", 0, 0
    for name, at, length in _find_chunks(source, begin + 12, size, ">"):
        source.seek(at)
        if name == b"COMM":
            channels, frames, bits, exponent, mantissa, kind = struct.unpack(">HIHHQ4s", source.read(22))
            rate = math.ldexp(float(mantissa), int(exponent & 0x7FFF) - 16383 - 63)  # an 80-bit float
            kind = kind if length >= 22 else b"NONE"
        if name == b"SSND":
            start, stated = at + 8 + struct.unpack(">I", source.read(4))[0], length
    if not rate:
        return None
    width = channels * ((bits + 7) // 8)
    tag = _AIFF_KINDS.get(kind, 1 if kind in _AIFF_PLAIN else 0)
    declared = frames * width
    if tag and 0 < start < size and not frames and stated in (0, 8):
        declared = _find_rest(source, start, size, ">")
    elif tag and 0 < start < size < start + declared and (is_placeholder(stated) or declared >= _AIFF_ENDLESS):
        declared = size - start
    order = "<" if kind == b"sowt" else ">"
    seconds = declared / (width * rate) if tag and width else frames / rate
    data = Data(tag, channels, rate, bits, order, start, declared, declared, seconds, block=width, iff=True)
    return _look_behind(source, data, size) if tag and start else data


def _look_behind(source: tp.BinaryIO, data: Data, size: int, padded: int = 2) -> Data:
    """Return `data` with what stands behind its declared end, where that can only be more samples.

    Args:
        source: the file, `size` bytes long.
        data: its samples, as declared.
        size: of the file.
        padded: chunks begin at multiples of so many bytes; 8 in Wave64, whose names have 16 bytes and sizes 8.
    """
    end = data.start + data.declared
    if not data.seconds or size - end < _SHORTEST * data.declared / data.seconds:
        return data
    source.seek(end)
    behind = source.read(64)
    order = ">" if data.iff else data.order
    gaps = {0, -data.declared % padded}  # some programs forget them
    if behind.startswith(_TAGS) or any(_is_chunk(behind[gap:], size - end - gap, order, padded) for gap in gaps):
        return data
    if size - end <= _PADDING and not (behind + source.read()).strip(b"\0"):
        return data
    taken = (
        data.subtype and data.rate == int(data.rate) and not behind.startswith(_FILES)
    )  # the header of another file is no sample
    return data._replace(length=size - data.start if taken else data.declared, surplus=True)


def _is_chunk(behind: bytes, left: int, order: str, padded: int) -> bool:
    name, length = behind[:4], struct.unpack(*((order + "I", behind[4:8]) if padded == 2 else ("<Q", behind[16:24])))[0]
    return name in _NAMES or (all(32 <= byte < 127 for byte in name) and length <= left and name not in _FILES)
