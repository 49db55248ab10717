"""Where the samples of a file stand (WAV, RF64, Wave64, AIFF, AU, CAF), whatever its header says of their number.

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
_AU_KINDS = {1: (7, 8), 2: (1, 8), 3: (1, 16), 4: (1, 24), 5: (1, 32), 6: (3, 32), 7: (3, 64), 27: (6, 8)}
_CAF_KINDS = {b"alaw": 6, b"ulaw": 7}
_AIFF_ENDLESS = 0x7E000000  # bytes; sox declares as many frames as fit into 7F000000 where it cannot seek
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # of mp3, which some programs put behind anything
_FILES = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff")  # another file, joined behind this one
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
    b"data",
    b"SSND",
)  # cut or not
_SHORTEST = 0.05  # seconds; fewer samples behind the declared end are padding
_LEAVINGS = 1 << 12  # bytes; fewer behind further chunks are what an editor of tags left
_PADDING = 1 << 20  # bytes of zeros that are padding, too
_CHUNKS = 4096  # more than any real file has

_Chunk = tp.Tuple[bytes, int, int]  # name, where the contents start, declared length in bytes
_Span = tp.Tuple[int, int]  # where bytes start, and how many


class Data(tp.NamedTuple):
    """The samples of a file: their format, and where they are."""

    tag: int  # as in WAV: 1 integer, 3 float, 6 A-law, 7 mu-law; 0 where AIFF has no such word
    channels: int
    rate: float  # Hz
    bits: int  # per sample
    order: str  # "<" or ">"
    start: int  # of the file's bytes
    length: int  # bytes that can be read, in all parts
    declared: int  # bytes that the header says, or as many as there are where it says nothing usable
    seconds: float  # of what is declared; of compressed data as exactly as it can be known
    surplus: bool = False  # samples stand behind the declared end
    block: int = 0  # bytes per frame, as declared
    iff: bool = False  # AIFF, AU, CAF: single bytes are signed, and chunks big-endian whatever the samples
    more: tp.Tuple[_Span, ...] = ()  # further parts: a second data chunk, of which decoders take the last alone

    @property
    def spans(self) -> tp.Tuple[_Span, ...]:
        """Where all that can be read stands."""
        return ((self.start, self.length - sum(length for _, length in self.more)), *self.more)

    @property
    def is_plain(self) -> bool:
        """Whether its seconds are exact: those of compressed data are what encoders believe."""
        return self.tag in (1, 3, 6, 7)

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
    """Return whether twelve bytes begin a file that `find_data` reads; of CAF, uncompressed ones."""
    wav = magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE"
    iff = magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC")
    return wav or iff or magic[:4] in (b"riff", b".snd", b"caff")


def find_data(source: tp.BinaryIO) -> tp.Optional[Data]:
    """Return the samples of a file of chunks, None for others and broken ones; moves the position."""
    size = source.seek(0, io.SEEK_END)
    start = skip_id3(source)
    source.seek(start)
    magic = source.read(12)
    if not is_chunked(magic):
        return None
    try:
        if magic[:4] in _FINDERS:
            return _FINDERS[magic[:4]](source, start, size)
        return _find_wav(source, start, size, ">" if magic[:4] == b"RIFX" else "<")
    except (struct.error, IndexError, KeyError, OverflowError, ZeroDivisionError):
        return None


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
            return _look_behind(source, _describe(form, samples, start, length, order), size, order + "4sI")
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
            return _look_behind(source, data, size, "<16sQ")
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
    channels, bits, frames, rate, kind, start, stated, parts = 0, 0, 0, 0.0, b"NONE", 0, 0, 0
    for name, at, length in _find_chunks(source, begin + 12, size, ">"):
        source.seek(at)
        if name == b"COMM":
            channels, frames, bits, exponent, mantissa, kind = struct.unpack(">HIHHQ4s", source.read(22))
            rate = math.ldexp(float(mantissa), int(exponent & 0x7FFF) - 16383 - 63)  # an 80-bit float
            kind = kind if length >= 22 else b"NONE"
        parts += name == b"SSND"
        if name == b"SSND" and parts == 1:
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
    if parts > 1:
        declared = min(declared, stated - 8)
    order = "<" if kind == b"sowt" else ">"
    seconds = declared / (width * rate) if tag and width else frames / rate
    data = Data(tag, channels, rate, bits, order, start, declared, declared, seconds, block=width, iff=True)
    return _look_behind(source, data, size, ">4sI") if tag and start else data


def _find_au(source: tp.BinaryIO, begin: int, size: int) -> tp.Optional[Data]:
    """Sun's and NeXT's: one header, and samples to the end."""
    source.seek(begin + 4)
    start, length, encoding, rate, channels = struct.unpack(">5I", source.read(20))
    start += begin
    (tag, bits), width = _AU_KINDS[encoding], channels * _AU_KINDS[encoding][1] // 8
    if not length or (is_placeholder(length) and start + length > size):
        length = size - start
    seconds = length / float(width * rate)
    data = Data(tag, channels, float(rate), bits, ">", start, length, length, seconds, block=width, iff=True)
    return _look_behind(source, data, size, "")


def _find_caf(source: tp.BinaryIO, begin: int, size: int) -> tp.Optional[Data]:
    """Apple's; None where packets are compressed, which its packet table counts."""
    form, start = b"", begin + 8
    while start + 12 <= size:
        source.seek(start)
        name, length = struct.unpack(">4sq", source.read(12))
        if name == b"desc":
            form = source.read(32)
        if name == b"data":
            rate, kind, flags, width, frames, channels, bits = struct.unpack(">d4s5I", form)
            tag = _CAF_KINDS.get(kind, (3 if flags & 1 else 1) if kind == b"lpcm" else 0)
            if not tag or frames != 1:
                return None
            length = (size - start - 12 if length < 0 else length) - 4  # of an edit count
            order, seconds = "<" if flags & 2 else ">", length // width / float(rate)
            data = Data(tag, channels, rate, bits, order, start + 16, length, length, seconds, block=width, iff=True)
            return _look_behind(source, data, size, ">4sq")
        if length < 0:
            return None
        start += 12 + length
    return None


_FINDERS = {b"riff": _find_w64, b"FORM": _find_aiff, b".snd": _find_au, b"caff": _find_caf}


def _look_behind(source: tp.BinaryIO, data: Data, size: int, head: str) -> Data:
    """Return `data` with what stands behind its declared end, where that is more samples.

    Further chunks are passed by; one with samples is the next part. What is no chunk is more samples right behind the
    first part, and something that nobody knows further on.

    Args:
        source: the file, `size` bytes long.
        data: its samples, as declared.
        size: of the file.
        head: format of a chunk's head, a name and a length; empty: there are no chunks.
    """
    end, before, more, rest = data.start + data.declared, data.declared, [], 0
    at = end
    for _ in range(_CHUNKS if data.seconds else 0):
        if size - at < (_SHORTEST * data.declared / data.seconds if at == end else _LEAVINGS):
            break
        chunk = _find_next(source, at, size, head, before)
        if chunk is None:
            rest = size - at if not _is_padding(source, at, size) else 0
            break
        name, start, before = chunk
        if name[:4] in (b"data", b"SSND"):
            skipped = 8 if name == b"SSND" else 0
            more.append((start + skipped, max(0, min(before, size - start) - skipped)))
        at = start + before
    if not rest and not more:
        return data
    source.seek(at)
    readable = data.subtype and data.rate == int(data.rate)
    if more:
        added = sum(length for _, length in more) if readable else 0
    else:  # the header of another file is no sample, and what stands behind other chunks need not be one
        added = rest if readable and at == end and not source.read(4).startswith(_FILES) else 0
    return data._replace(length=data.declared + added, surplus=True, more=tuple(more))


def _find_next(source: tp.BinaryIO, at: int, size: int, head: str, before: int) -> tp.Optional[_Chunk]:
    """Return the chunk at `at`, or None; the `before` bytes of the one ahead of it may be padded."""
    if not head:
        return None
    width = struct.calcsize(head)
    padded = {8: 2, 24: 8}.get(width, 1)
    for gap in sorted({0, -before % padded}):  # some programs forget it
        source.seek(at + gap)
        found = source.read(width)
        if len(found) < width:
            continue
        name, length = struct.unpack(head, found)
        length -= width if padded == 8 else 0
        known = name[:4] in _NAMES
        named = known or (all(32 <= byte < 127 for byte in name[:4]) and name[:4] not in _FILES)
        if named and length >= 0 and (known or length <= size - at - gap - width):
            return name, at + gap + width, length
    return None


def _is_padding(source: tp.BinaryIO, at: int, size: int) -> bool:
    source.seek(at)
    behind = source.read(_PADDING + 1)
    return behind.startswith(_TAGS) or (len(behind) <= _PADDING and not behind.strip(b"\0"))
