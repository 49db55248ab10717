import io
import os
import random
import struct

import numpy as np
import pytest
import soundfile

from worker.audio import durations, mpeg

QUICKSTART = os.path.join(os.path.dirname(__file__), os.pardir, "audio", "quickstart")
RATE = 24000  # one that Opus and MP3 know, too
WRITTEN = [
    ("WAV", "PCM_16"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_24"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def make(container, subtype, seconds=1.5, channels=1, seed=0):
    """Return the bytes of a noisy file that libsndfile wrote."""
    noise = np.random.RandomState(seed).uniform(-0.5, 0.5, (int(seconds * RATE), channels))
    target = io.BytesIO()
    soundfile.write(target, noise.astype(np.float32), RATE, subtype, format=container)
    return target.getvalue()


def measure(data):
    return durations.declared_duration(io.BytesIO(data))


@pytest.mark.parametrize("container,subtype", WRITTEN)
@pytest.mark.parametrize("channels", [1, 2])
def test_duration_of_what_libsndfile_writes(container, subtype, channels):
    # ADPCM comes in blocks; Opus and MP3 encoders add what a player takes off again
    tolerance = {"IMA_ADPCM": 0.05, "OPUS": 0.02, "MPEG_LAYER_III": 0.05}.get(subtype, 1e-6)
    assert measure(make(container, subtype, 1.5, channels)) == pytest.approx(1.5, abs=tolerance)


def patch_data_size(data, size):
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_wav_of_unknown_size_reaches_to_the_end(size):
    assert measure(patch_data_size(make("WAV", "PCM_16"), size)) == pytest.approx(1.5)


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFDB])
def test_sizes_of_programs_that_cannot_seek_back_declare_nothing(size):
    assert measure(patch_data_size(make("WAV", "PCM_16"), size)) == pytest.approx(1.5)


def test_streamed_wave64_aiff_and_au_reach_to_the_end():
    w64, aiff, au = (bytearray(make(container, "PCM_16")) for container in ("W64", "AIFF", "AU"))
    struct.pack_into("<Q", w64, w64.index(b"data") + 16, (1 << 63) - 1)  # ffmpeg
    struct.pack_into(">I", aiff, aiff.index(b"COMM") + 10, 0x7F000000 // 2)  # sox
    struct.pack_into(">I", au, 8, 0x7FFFFFFF)
    for data in (w64, aiff, au):
        assert measure(bytes(data)) == pytest.approx(1.5, abs=1e-3)


def test_a_size_that_wrapped_at_4_gib_is_not_believed(tmp_path):
    data = patch_data_size(make("WAV", "PCM_16"), 20 * RATE)
    (tmp_path / "a.wav").write_bytes(data)
    os.truncate(str(tmp_path / "a.wav"), 44 + 20 * RATE + (1 << 32))
    with open(str(tmp_path / "a.wav"), "rb") as source:
        assert durations.declared_duration(source) == pytest.approx((20 * RATE + (1 << 32)) / (2 * RATE))


def test_empty_wav_does_not_take_its_tags_for_audio():
    empty = make("WAV", "PCM_16", 0.0)
    assert measure(empty) == 0.0
    assert measure(empty + b"LIST" + struct.pack("<I", 100) + bytes(100)) == 0.0


@pytest.mark.parametrize("container,subtype", [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")])
def test_truncated_file_still_declares_all(container, subtype):
    data = make(container, subtype)
    assert measure(data[: len(data) // 2]) == pytest.approx(1.5)


def test_flac_with_unknown_length_declares_nothing():
    data = bytearray(make("FLAC", "PCM_16"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert measure(bytes(data)) is None


def test_chained_ogg_adds_up():
    chained = make("OGG", "VORBIS", 1.0, seed=1) + make("OGG", "VORBIS", 2.0, seed=2)
    assert measure(chained) == pytest.approx(3.0, abs=1e-3)


def pages(data):
    """Return the pages of an Ogg file, each with its granule."""
    found = []
    while data:
        length = 27 + data[26] + sum(data[27 : 27 + data[26]])
        found.append((struct.unpack("<q", data[6:14])[0], data[:length]))
        data = data[length:]
    return found


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("dropped", [1, 20])
def test_ogg_that_was_cut_out_of_a_running_stream_is_as_long_as_it_is(subtype, dropped):
    whole = pages(make("OGG", subtype, 30.0))
    head = [page for granule, page in whole if granule == 0]
    body = [(granule, page) for granule, page in whole if granule]
    cut = b"".join(head + [page for _, page in body[dropped:]])
    rate = 48000 if subtype == "OPUS" else RATE
    left = (body[-1][0] - body[dropped - 1][0]) / rate
    assert left - 1.2 < measure(cut) <= left + 1e-6, "but for its first page"
    assert len(soundfile.read(io.BytesIO(cut))[0]) / RATE == pytest.approx(left, abs=0.05)


def strip_tag(data):
    """Return an mp3 without its first frame, which holds the Xing tag."""
    first = mpeg.find_frame(io.BytesIO(data), 0, len(data))
    return data[first + mpeg.parse_frame(data[first : first + 4]).length :]


def test_mp3_without_tag_is_counted():
    data = make("MP3", "MPEG_LAYER_III", 3.0)
    bare = strip_tag(data)
    assert len(bare) < len(data)
    assert measure(bare) == pytest.approx(3.0, abs=0.1)  # with the encoder's delay and padding


def test_mp3_files_joined_behind_one_tag_are_counted():
    data = make("MP3", "MPEG_LAYER_III", 3.0)
    assert measure(data + strip_tag(data)) == pytest.approx(6.0, abs=0.1)


def test_truncated_mp3_still_declares_what_its_tag_says():
    data = make("MP3", "MPEG_LAYER_III", 3.0)
    assert measure(data[: len(data) // 2]) == pytest.approx(3.0, abs=0.05)


def test_id3_tags_and_junk_before_an_mp3_are_skipped():
    data = make("MP3", "MPEG_LAYER_III", 1.0)
    body = b"\xff\xfb\x90\x00" * 500  # looks like frame headers
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, len(body) >> 7, len(body) & 127]) + body
    assert measure(tag + data) == measure(data)
    assert measure(b"junk\xff\xfb" * 100 + data) == measure(data)


@pytest.mark.parametrize(
    "name,seconds",
    [
        ("music/flute_in_rain.m4a", 6.177),
        ("music/hungarian_dance.flac", 12.0),
        ("music/solo trumpet.ogg", 5.333),
        ("speech/austen.wav", 3.29),
        ("speech/common_voice.mp3", 2.376),
    ],
)
def test_real_files(name, seconds):
    with open(os.path.join(QUICKSTART, name), "rb") as source:
        assert durations.declared_duration(source) == pytest.approx(seconds, abs=0.03)


def test_fragmented_mp4_declares_nothing():
    with open(os.path.join(QUICKSTART, "music", "flute_in_rain.m4a"), "rb") as source:
        data = source.read()
    start = data.index(b"moov") - 4
    size = struct.unpack(">I", data[start : start + 4])[0]
    tracks, fragments = data[start + 8 : start + size], struct.pack(">I4s", 8, b"mvex")
    moov = struct.pack(">I4s", size + 8, b"moov") + tracks + fragments
    assert measure(data) is not None
    assert measure(data[:start] + moov) is None


@pytest.mark.parametrize("container,subtype", WRITTEN)
def test_damage_never_raises_and_never_hangs(container, subtype):
    chance = random.Random(1)
    whole = make(container, subtype, 0.2)
    for _ in range(200):
        data = bytearray(whole[: chance.randrange(len(whole))])
        for _ in range(min(len(data), 4)):
            data[chance.randrange(min(len(data), 200))] = chance.choice([0, 255, chance.randrange(256)])
        seconds = measure(bytes(data))
        assert seconds is None or 0 <= seconds < float("inf")


def test_damaged_mp4_never_raises():
    with open(os.path.join(QUICKSTART, "music", "flute_in_rain.m4a"), "rb") as source:
        whole = source.read()
    start, chance = whole.index(b"moov") - 4, random.Random(2)
    for _ in range(500):
        data = bytearray(whole[: len(whole) - chance.randrange(2) * chance.randrange(2000)])
        for _ in range(4):
            data[min(len(data) - 1, start + chance.randrange(600))] = chance.choice([0, 1, 255])
        seconds = measure(bytes(data))
        assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 4096, b"not audio at all", b"\xff" * 70000, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f"],
)
def test_what_is_no_audio_declares_nothing(data):
    assert measure(data) is None


class Counted(io.FileIO):
    """A file that counts the bytes that are taken from it."""

    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def test_a_header_before_much_of_nothing_is_given_up_soon(tmp_path):
    path = tmp_path / "sparse.wav"
    path.write_bytes(b"RIFF\xff\xff\xff\x7fWAVE")
    os.truncate(str(path), 1 << 30)
    with Counted(str(path)) as source:
        assert durations.declared_duration(source) is None
        assert source.taken < 1 << 20
