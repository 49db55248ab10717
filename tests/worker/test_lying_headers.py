"""Headers that declare less than the file holds: what stands behind is read or flagged, and nothing is lost."""

import os
import struct

import numpy as np
import pytest
from sounds import RATE, SINE, decode, encode, fail, needs_ffmpeg, noise, open_bytes, write

SECOND = 2 * RATE  # bytes of 16-bit mono
ODD = b"LIST" + struct.pack("<I", 13) + b"INFOIART\x01\0\0\0a\0"


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body


def wav(*chunks):
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, SECOND, 2, 16))
    body = b"WAVE" + form + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def two_parts(container, samples, path):
    """Return a file whose samples stand in two chunks, the first of them one second long."""
    data = open_bytes(write(path, samples, container=container))
    if container == "WAV":
        return wav(chunk(b"data", data[44:][:SECOND]), ODD, chunk(b"data", data[44:][SECOND:]))
    if container == "W64":
        at = data.index(b"data")
        parts = (data[at + 24 :][:SECOND], data[at + 24 :][SECOND:])
        return data[:at] + b"".join(data[at : at + 16] + struct.pack("<Q", 24 + len(part)) + part for part in parts)
    at = data.index(b"SSND")
    parts = (data[at + 16 :][:SECOND], data[at + 16 :][SECOND:])
    return data[:at] + b"".join(b"SSND" + struct.pack(">III", 8 + len(part), 0, 0) + part for part in parts)


@pytest.mark.parametrize("container", ["WAV", "W64", "AIFF"])
def test_samples_in_two_chunks_are_read_as_one(tmp_path, container):
    samples = noise(4 * RATE)
    whole = decode(write(tmp_path / "whole.wav", samples)).wave(RATE, 1)
    (tmp_path / "a.x").write_bytes(two_parts(container, samples, tmp_path / "b.x"))
    with decode(tmp_path / "a.x") as found:
        assert found.flags == ["trailing_data"] and (found.duration, found.declared) == (4.0, 1.0)
        assert np.array_equal(found.wave(RATE, 1), whole)


def test_compressed_samples_in_two_chunks_are_refused(tmp_path):
    data = open_bytes(write(tmp_path / "a.wav", noise(RATE), subtype="IMA_ADPCM"))
    (tmp_path / "a.wav").write_bytes(data + data[data.index(b"data") :])
    assert "its samples stand in several chunks" in str(fail(tmp_path / "a.wav"))


@pytest.mark.parametrize("behind", [ODD, b"abcd" + struct.pack("<I", 1000) + bytes(1000)], ids=["LIST", "other"])
def test_what_stands_behind_further_chunks_is_flagged_and_not_read(tmp_path, behind):
    samples = open_bytes(write(tmp_path / "b.wav", noise(4 * RATE)))[44:]
    (tmp_path / "a.wav").write_bytes(wav(chunk(b"data", samples[:SECOND]), behind, samples[SECOND:]))
    with decode(tmp_path / "a.wav") as found:
        assert found.flags == ["trailing_data"] and (found.duration, found.declared) == (1.0, 1.0)


ENCODINGS = [("AU", subtype, "BIG") for subtype in ("PCM_16", "PCM_S8", "ULAW", "FLOAT", "DOUBLE")]
ENCODINGS += [("CAF", subtype, "BIG") for subtype in ("PCM_16", "PCM_S8", "ALAW", "FLOAT", "PCM_24")]
ENCODINGS += [("CAF", "PCM_16", "LITTLE"), ("CAF", "FLOAT", "LITTLE")]


@pytest.mark.parametrize("container,subtype,endian", ENCODINGS)
def test_au_and_caf_that_declare_less_are_read_to_the_end(tmp_path, container, subtype, endian):
    path = write(tmp_path / "a.x", noise(RATE, 2), RATE, subtype, container, endian)
    with decode(path) as found:
        assert found.flags == [] and found.duration == 1.0
        whole = found.wave(RATE, 1)
    data = bytearray(open_bytes(path))
    width = {"PCM_16": 4, "PCM_S8": 2, "ULAW": 2, "ALAW": 2, "FLOAT": 8, "DOUBLE": 16, "PCM_24": 6}[subtype]
    tenth = RATE // 10 * width
    if container == "AU":
        struct.pack_into(">I", data, 8, tenth)
    else:
        struct.pack_into(">q", data, data.index(b"data") + 4, tenth + 4)
    (tmp_path / "a.x").write_bytes(bytes(data))
    with decode(path) as found:
        assert found.flags == ["trailing_data"] and (found.duration, found.declared) == (1.0, 0.1)
        assert np.array_equal(found.wave(RATE, 1), whole)


@pytest.mark.parametrize("container", ["AU", "CAF"])
def test_au_and_caf_joined_to_another_are_flagged(tmp_path, container):
    path = write(tmp_path / "a.x", noise(RATE), container=container)
    (tmp_path / "a.x").write_bytes(open_bytes(path) * 2)
    with decode(path) as found:
        assert found.flags == ["trailing_data"] and found.duration == 1.0


def flac(path, seconds=4, seed=0):
    return bytearray(open_bytes(write(path, noise(seconds * RATE, seed=seed), container="FLAC")))


@needs_ffmpeg
def test_flac_that_declares_less_is_read_to_the_end(tmp_path):
    data = flac(tmp_path / "a.flac")
    whole = decode(tmp_path / "a.flac").wave(RATE, 1)
    data[22:26] = struct.pack(">I", RATE)  # samples in all
    (tmp_path / "a.flac").write_bytes(bytes(data))
    with decode(tmp_path / "a.flac") as found:
        assert found.flags == ["trailing_data"] and (found.duration, found.declared) == (4.0, 1.0)
        assert np.array_equal(found.wave(RATE, 1), whole)


@needs_ffmpeg
@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), bytes(3000), b"APETAGEX" + b"x" * 3000])
def test_tags_behind_flac_are_no_audio_and_no_damage(tmp_path, behind):
    (tmp_path / "a.flac").write_bytes(bytes(flac(tmp_path / "a.flac")) + behind)
    with decode(tmp_path / "a.flac") as found:
        assert found.flags == [] and found.duration == 4.0


@needs_ffmpeg
@pytest.mark.parametrize("lengths", [(1, 4), (4, 1)])
def test_joined_flac_is_read_on_and_flagged(tmp_path, lengths):
    """ffmpeg loses a frame between them."""
    (tmp_path / "a.flac").write_bytes(b"".join(bytes(flac(tmp_path / "b.flac", seconds)) for seconds in lengths))
    with decode(tmp_path / "a.flac") as found:
        assert found.flags == ["trailing_data"] and found.declared == lengths[0]
        assert 4.7 < found.duration <= 5.0


@needs_ffmpeg
def test_rotten_flac_of_full_length_is_flagged(tmp_path):
    """ffmpeg takes no account of the checksums in which libFLAC finds it."""
    path = write(tmp_path / "a.flac", np.concatenate([SINE] * 10) * 0.3, container="FLAC")
    data = bytearray(open_bytes(path))
    data[len(data) // 2] ^= 1
    (tmp_path / "a.flac").write_bytes(bytes(data))
    with decode(path) as found:
        assert found.flags == ["damaged"] and found.duration == 10.0


@needs_ffmpeg
def test_a_few_damaged_packets_of_a_declared_length_are_flagged(tmp_path):
    path = encode(tmp_path / "a.m4a", "-c:a", "aac", rate=RATE, seconds=10)
    data = bytearray(open_bytes(path))
    half = len(data) // 2
    data[half : half + 40] = bytes(byte ^ 0x5A for byte in data[half : half + 40])
    (tmp_path / "a.m4a").write_bytes(bytes(data))
    with decode(path) as found:
        assert found.flags == ["damaged"] and found.duration == pytest.approx(10.0, abs=0.05)


@needs_ffmpeg
def test_mp4_joined_to_another_is_flagged(tmp_path):
    path = encode(tmp_path / "a.m4a", "-c:a", "aac")
    seconds = decode(path).duration
    (tmp_path / "a.m4a").write_bytes(open_bytes(path) * 2)
    with decode(path) as found:
        assert found.flags == ["trailing_data"] and found.duration == seconds


@needs_ffmpeg
def test_mp4_whose_length_is_too_small_is_flagged(tmp_path):
    path = encode(tmp_path / "a.m4a", "-c:a", "aac")
    data = bytearray(open_bytes(path))
    struct.pack_into(">I", data, data.index(b"mdhd") + 20, 44100)
    (tmp_path / "a.m4a").write_bytes(bytes(data))
    with decode(path) as found:
        assert found.flags == ["trailing_data"] and found.declared == 1.0 and found.duration > 2.9


POLYNOMIAL = 0x04C11DB7


def checksum(page):
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) & 0xFFFFFFFF ^ (POLYNOMIAL if value >> 31 else 0)
    return value


def count_anew(data, last, limit):
    """Return an Ogg file whose granules, or its last one alone, end at `limit`."""
    found = []
    while data:
        length = 27 + data[26] + sum(data[27 : 27 + data[26]])
        found.append(bytearray(data[:length]))
        data = data[length:]
    for page in found[-1:] if last else found:
        struct.pack_into("<q", page, 6, min(struct.unpack_from("<q", page, 6)[0], limit))
        struct.pack_into("<I", page, 22, 0)
        struct.pack_into("<I", page, 22, checksum(page))
    return b"".join(map(bytes, found))


@needs_ffmpeg
@pytest.mark.parametrize("last", [True, False], ids=["last", "all"])
@pytest.mark.parametrize("subtype,rate", [("VORBIS", RATE), ("OPUS", 48000)])
def test_ogg_whose_granules_stop_counting_is_read_to_the_end(tmp_path, subtype, rate, last):
    data = open_bytes(write(tmp_path / "b.ogg", noise(8 * RATE), subtype=subtype, container="OGG"))
    (tmp_path / "a.ogg").write_bytes(count_anew(data, last, rate))
    with decode(tmp_path / "a.ogg") as found:
        assert found.flags == ["trailing_data"] and found.declared == pytest.approx(1.0, abs=0.02)
        assert 6.9 < found.duration < 8.05  # ffmpeg leaves out the last page of Opus


@needs_ffmpeg
def test_an_mp3_that_a_tag_claims_to_cover_is_read_from_its_first_frame(tmp_path):
    path = encode(tmp_path / "a.mp3", "-id3v2_version", "0", "-b:a", "64k")
    data, half = open_bytes(path), os.path.getsize(path) // 2
    whole = decode(path).samples
    tag = b"ID3\x04\0\0" + bytes(half >> shift & 127 for shift in (21, 14, 7, 0))
    (tmp_path / "a.mp3").write_bytes(tag + data)
    with decode(path) as found:
        assert found.flags == [] and found.samples == whole


@needs_ffmpeg
@pytest.mark.parametrize("name,codec", [("a.m4a", "aac"), ("a.mka", "flac"), ("a.ogg", "libvorbis")])
def test_further_tracks_are_flagged(tmp_path, name, codec):
    with decode(encode(tmp_path / name, "-map", "0:a", "-map", "0:a", "-c:a", codec)) as found:
        assert "other_tracks" in found.flags
    with decode(encode(tmp_path / name, "-c:a", codec)) as found:
        assert "other_tracks" not in found.flags
