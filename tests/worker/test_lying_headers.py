"""Headers that declare less than the file holds: what stands behind is read or flagged, and nothing is lost."""

import struct

import numpy as np
import pytest
from sounds import RATE, decode, fail, noise, open_bytes, write

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
