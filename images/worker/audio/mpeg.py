"""How long MPEG audio claims to be: frames of an mp3 (ISO 11172-3) and boxes of an mp4 (ISO 14496-12).

Neither can be taken from one field. An mp3 may lack every header, or be two files joined, so its frames
are counted; an mp4 repeats its duration in several boxes, of which edit lists make some too long.
"""

import io
import struct
import typing as tp

_SEARCH = 1 << 16  # bytes per step while looking for the next frame
_BURIED, _BURIED_FRAMES = 1 << 13, 3  # bytes at the end of a tag in which frames are looked for, and how many of them
_MOOV_LIMIT = 1 << 26  # bytes; a larger index is not worth reading for one number

# kbit/s by index 1..14, of MPEG-1 layers I, II, III and of MPEG-2/2.5 layers I, II+III (11172-3, 2.4.2.3)
_BITRATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class Frame(tp.NamedTuple):
    """What the four header bytes of an MPEG audio frame say."""

    length: int  # bytes, header included
    samples: int  # per channel
    sample_rate: int  # Hz
    side_info: int  # bytes between the header and a possible Xing tag


def parse_frame(head: bytes) -> tp.Optional[Frame]:
    """Return the frame that starts with `head` (4 bytes), or None where that is no valid header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    sample_rate = _RATES[version][rate]
    generation = 1 if version == 3 else 2
    bits = 1000 * _BITRATES[generation, layer][bitrate - 1]
    if layer == 1:
        return Frame((12 * bits // sample_rate + padding) * 4, 384, sample_rate, 0)
    samples = 576 if layer == 3 and generation == 2 else 1152
    mono = head[3] >> 6 == 3
    side_info = (17 if mono else 32) if generation == 1 else (9 if mono else 17)
    return Frame(samples // 8 * bits // sample_rate + padding, samples, sample_rate, side_info)


def find_frame(source: tp.BinaryIO, start: int, stop: int) -> tp.Optional[int]:
    """Return the position of the first frame in `[start, stop)` that another like it follows.

    A lone header is not enough: the bits of a cover picture look like one every few kilobytes.
    """
    while start < stop:
        source.seek(start)
        chunk = source.read(_SEARCH + 3)
        if len(chunk) < 4:
            return None
        at = chunk.find(b"\xff")
        while 0 <= at < min(_SEARCH, stop - start):
            frame = parse_frame(chunk[at : at + 4])
            if frame is not None and _is_followed(source, start + at, frame):
                return start + at
            at = chunk.find(b"\xff", at + 1)
        start += _SEARCH
    return None


def find_buried(source: tp.BinaryIO, stop: int) -> tp.Optional[int]:
    """Return where an mp3 begins that the ID3v2 tags in front of it claim to cover, as their end is at `stop`.

    Then its frames run over that end, one behind the other. None: they do not.
    """
    at = find_frame(source, max(10, stop - _BURIED), stop) if stop else None
    while at is not None:
        position, count = at, 0
        frame = _read_frame(source, position)
        while frame is not None and position < stop:
            position, count = position + frame.length, count + 1
            frame = _read_frame(source, position)
        if frame is not None and count >= _BURIED_FRAMES:
            return find_frame(source, 10, stop)
        at = find_frame(source, at + 1, stop)
    return None


def _read_frame(source: tp.BinaryIO, position: int) -> tp.Optional[Frame]:
    source.seek(position)
    return parse_frame(source.read(4))


def _is_followed(source: tp.BinaryIO, position: int, frame: Frame) -> bool:
    source.seek(position + frame.length)
    follower = parse_frame(source.read(4))
    return follower is not None and follower.sample_rate == frame.sample_rate


def measure_mp3(source: tp.BinaryIO, first: int, size: int) -> float:
    """Return the duration in seconds of the mp3 whose first frame is at `first`.

    The larger of two numbers, because either can be wrong: what the Xing tag promises (a truncated
    file), and what all frames together hold (files joined behind one tag). Encoder delay and padding
    are taken off where a LAME tag states them.
    """
    source.seek(first)
    head = source.read(4096)
    frame = parse_frame(head)
    if frame is None:
        return 0.0
    promised, trimmed, tagged = _read_tag(head, frame)
    counted = _count(source, first, size) - tagged * frame.samples / frame.sample_rate
    return max(counted, promised * frame.samples / frame.sample_rate) - trimmed / frame.sample_rate


def _read_tag(head: bytes, frame: Frame) -> tp.Tuple[int, int, bool]:
    """Return the frames promised, the samples of delay and padding, and whether there is a tag at all."""
    tag = head[4 + frame.side_info :]
    if tag[:4] not in (b"Xing", b"Info"):
        return 0, 0, False
    flags = tag[7] if len(tag) > 7 else 0
    promised = struct.unpack(">I", tag[8:12])[0] if flags & 1 else 0
    lame = 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    gapless = tag[lame + 21 : lame + 24]  # two numbers of 12 bits behind 9 bytes of name and 12 of settings
    if len(gapless) < 3 or not tag[lame : lame + 4].isalnum():
        return promised, 0, True
    return promised, (gapless[0] << 4 | gapless[1] >> 4) + ((gapless[1] & 15) << 8 | gapless[2]), True


def _count(source: tp.BinaryIO, first: int, size: int) -> float:
    """Return the seconds in all whole frames from `first` on, wherever they stand."""
    samples: tp.Dict[int, int] = {}
    position: tp.Optional[int] = first
    while position is not None and position < size:
        source.seek(position)
        frame = parse_frame(source.read(4))
        if frame is None:
            position = find_frame(source, position + 1, size)
            continue
        position += frame.length
        if position <= size:
            samples[frame.sample_rate] = samples.get(frame.sample_rate, 0) + frame.samples
    return sum(count / rate for rate, count in sorted(samples.items()))


class Box(tp.NamedTuple):
    """One box of an mp4: its type, and where its contents are."""

    kind: bytes
    start: int
    stop: int


def find_boxes(data: bytes, start: int, stop: int) -> tp.Iterator[Box]:
    """Yield the boxes in `data[start:stop]`, up to the first one that is malformed."""
    while start + 8 <= stop:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        header = 8
        if size == 1 and start + 16 <= stop:
            size, header = struct.unpack(">Q", data[start + 8 : start + 16])[0], 16
        end = start + size if size else stop
        if 0 < size < header or end > stop:
            return
        yield Box(kind, start + header, end)
        start = end


def measure_mp4(source: tp.BinaryIO, size: int) -> tp.Optional[float]:
    """Return the duration in seconds of the first sound track, None for fragments and broken files."""
    moov = _read_moov(source, size)
    boxes = list(find_boxes(moov, 0, len(moov)))
    scale = [_read_times(moov, box, 0)[0] for box in boxes if box.kind == b"mvhd"]
    if not scale or any(box.kind == b"mvex" for box in boxes):
        return None
    for track in (box for box in boxes if box.kind == b"trak"):
        seconds = _measure_track(moov, track, scale[0])
        if seconds is not None:
            return seconds
    return None


_PROTECTED = {b"enca": "CENC", b"drms": "FairPlay", b"aavd": "Audible", b"aavc": "Audible"}  # sample entries


def find_encryption(source: tp.BinaryIO) -> str:
    """Return the scheme by which an mp4's first sound track is encrypted, by its sample entry; empty: it is not.

    Decoders take the scrambled packets for damaged ones, and make noise of some.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    moov = _read_moov(source, size) if source.read(8)[4:] == b"ftyp" else b""
    for track in (box for box in find_boxes(moov, 0, len(moov)) if box.kind == b"trak"):
        at, kinds = track, [b"mdia", b"minf", b"stbl", b"stsd"]
        if moov.find(b"soun", track.start, track.stop) < 0:
            continue
        for kind in kinds:
            at = next((box for box in find_boxes(moov, at.start, at.stop) if box.kind == kind), Box(b"", 0, 0))
        entry = next(find_boxes(moov, at.start + 8, at.stop), Box(b"", 0, 0))  # behind version and count
        scheme = moov.find(b"schm", entry.start, entry.stop)
        if entry.kind == b"enca" and scheme >= 0:
            return moov[scheme + 8 : scheme + 12].decode("ascii", "replace")
        return _PROTECTED.get(entry.kind, "")
    return ""


def _find_top(source: tp.BinaryIO, size: int) -> tp.Iterator[tp.Tuple[bytes, int, int]]:
    """Yield kind, position and length of the boxes of a file, up to the first one that is malformed."""
    position = 0
    while position + 8 <= size:
        source.seek(position)
        head = source.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        yield kind, position, length
        if length < 8:
            return
        position += length


def _read_moov(source: tp.BinaryIO, size: int) -> bytes:
    for kind, position, length in _find_top(source, size):
        if kind == b"moov" and 8 <= length <= _MOOV_LIMIT:
            source.seek(position + 8)
            return source.read(length - 8)
    return b""


def is_joined(source: tp.BinaryIO, size: int) -> bool:
    """Return whether another mp4 stands behind the first."""
    kinds = [kind for kind, _, _ in _find_top(source, size)]
    return b"ftyp" in kinds[kinds.index(b"moov") :] if b"moov" in kinds else False


def _measure_track(moov: bytes, track: Box, movie_scale: int) -> tp.Optional[float]:
    """Return the shorter of the media's duration and the track's, which knows its edit list."""
    parts = {box.kind: box for box in find_boxes(moov, track.start, track.stop)}
    media = {box.kind: box for box in find_boxes(moov, *parts[b"mdia"][1:])} if b"mdia" in parts else {}
    if not {b"mdhd", b"hdlr"} <= set(media) or moov[media[b"hdlr"].start + 8 :][:4] != b"soun":
        return None
    scale, units = _read_times(moov, media[b"mdhd"], 0)
    known = [units / scale] if scale and units else []
    if b"tkhd" in parts and movie_scale:
        edited = _read_times(moov, parts[b"tkhd"], 4)[1] / movie_scale
        known += [edited] if edited else []
    return min(known) if known else None


def _read_times(moov: bytes, box: Box, gap: int) -> tp.Tuple[int, int]:
    """Return the timescale and the duration of an mvhd, mdhd (gap 0) or tkhd (gap 4: an id and a hole)."""
    wide = moov[box.start] == 1
    at = box.start + (20 if wide else 12)
    form = ">I{}x{}".format(gap, "Q" if wide else "I")
    scale, units = struct.unpack(form, moov[at : at + struct.calcsize(form)])
    unknown = (1 << (64 if wide else 32)) - 1
    return scale, 0 if units == unknown else units
