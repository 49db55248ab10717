"""What decoders make of broken, mislabelled and scrambled files, and what is believed of it."""

import hashlib
import io
import struct

import numpy as np
import pytest
from sounds import RATE, SINE, decode, encode, fail, needs_ffmpeg, noise, open_bytes, pcm16, write

from worker.audio import chunks
from worker.audio import decode as audio


def test_integers_of_32_bits_in_a_float_file_are_refused(tmp_path):
    error = fail(write(tmp_path / "a.wav", 2.0**31 * SINE, subtype="FLOAT"))
    assert error.kind == "nonfinite"
    assert "peaks at 2.147e+09, full scale is 1.0: was it written as integers?" in str(error)


def test_the_same_samples_in_two_formats_have_one_hash(tmp_path):
    samples = pcm16(audio.BLOCK + 1000, 2)
    paths = [write(tmp_path / name, samples, RATE, "PCM_16", name[2:].upper()) for name in ("a.wav", "a.flac")]
    hashes = {decode(path).samples for path in paths}
    assert hashes == {hashlib.sha256((samples / np.float32(32768)).tobytes()).hexdigest()}


@pytest.mark.parametrize("rate", [100, 250, 4000000])
def test_rates_of_whales_and_of_ultrasound(tmp_path, rate):
    with decode(write(tmp_path / "a.wav", noise(3000), rate), [(RATE, 1), (48000, 2)]) as found:
        assert found.sample_rate == rate and found.duration == 3000 / rate and found.flags == []
        assert found.wave(RATE, 1).shape[1] == int(3000 * RATE / rate + 0.5)


CONTAINERS = {"WAV": ("<I", b"data", 4), "W64": ("<Q", b"data", 16), "AIFF": (">I", b"COMM", 10)}
ENCODINGS = [("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("W64", "PCM_24")]
ENCODINGS += [("AIFF", "PCM_16"), ("AIFF", "PCM_S8"), ("AIFF", "FLOAT")]


@pytest.mark.parametrize("container,subtype", ENCODINGS)
def test_samples_behind_the_declared_end_are_read_and_flagged(tmp_path, container, subtype):
    path = write(tmp_path / "a.x", noise(RATE, 2), RATE, subtype, container)
    whole = decode(path).wave(RATE, 1)
    form, chunk, ahead = CONTAINERS[container]
    data = bytearray(open_bytes(path))
    at = data.index(chunk) + ahead
    frames = RATE // 10  # that it is made to declare
    width = {"PCM_16": 4, "PCM_U8": 2, "PCM_S8": 2, "FLOAT": 8, "ULAW": 2, "PCM_24": 6}[subtype]
    declared = frames if container == "AIFF" else frames * width + 24 * (container == "W64")
    struct.pack_into(form, data, at, declared)
    (tmp_path / "a.x").write_bytes(bytes(data))
    with decode(path) as found:
        assert found.flags == ["trailing_data"] and (found.duration, found.declared) == (1.0, 0.1)
        assert np.array_equal(found.wave(RATE, 1), whole)


BEHIND = {
    "chunks": b"LIST" + struct.pack("<I", 4000) + bytes(range(1, 251)) * 16,
    "a chunk that is cut": b"LIST" + struct.pack("<I", 40000) + bytes(range(1, 251)) * 16,
    "tag": b"TAG" + b"x" * 4000,
    "zeros": bytes(8000),
    "few": b"\x81" * 300,
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_is_no_sample_behind_the_declared_end_is_left(tmp_path, behind):
    path = write(tmp_path / "a.wav", noise(RATE))
    (tmp_path / "a.wav").write_bytes(open_bytes(path) + behind)
    with decode(path) as found:
        assert found.flags == [] and found.duration == 1.0


@needs_ffmpeg
def test_rf64_that_was_written_to_a_pipe_is_read(tmp_path):
    """Its sizes are all zero, and both decoders take that for no samples."""
    path = encode(tmp_path / "a.wav", "-rf64", "always", "-f", "wav")
    whole = decode(path, [(44100, 2)]).wave(44100, 2)
    data = bytearray(open_bytes(path))
    data[4:8], data[20:48] = b"\xff" * 4, bytes(28)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    with decode(path, [(44100, 2)]) as found:
        assert found.flags == [] and np.array_equal(found.wave(44100, 2), whole)


def test_samples_in_wider_words_are_flagged_and_not_read(tmp_path):
    """24 bits in 32, as some recorders write: the declared part is read as ever, and the rest is not guessed at."""
    path = write(tmp_path / "a.wav", noise(RATE, 2), RATE, "PCM_32")
    data = bytearray(open_bytes(path))
    struct.pack_into("<H", data, 34, 24)
    struct.pack_into("<I", data, data.index(b"data") + 4, 64000)
    found = chunks.find_data(io.BytesIO(bytes(data)))
    assert found.surplus and found.length == found.declared == 64000


def test_little_endian_aiff_has_big_endian_chunks(tmp_path):
    path = write(tmp_path / "a.aiff", noise(RATE), RATE, "PCM_16", "AIFF", "LITTLE")
    (tmp_path / "a.aiff").write_bytes(open_bytes(path) + b"APPL" + struct.pack(">I", 4000) + b"\x55" * 4000)
    assert decode(path).flags == []


@needs_ffmpeg
@pytest.mark.parametrize("subtype", ["PCM_16", "IMA_ADPCM"])
def test_another_file_behind_the_first_is_flagged_and_not_read(tmp_path, subtype):
    path = write(tmp_path / "a.wav", noise(RATE), RATE, subtype)
    seconds = decode(path).duration
    (tmp_path / "a.wav").write_bytes(open_bytes(path) * 2)
    with decode(path) as found:
        assert found.flags == ["trailing_data"] and found.duration == seconds


SCRAMBLED = ["-c:a", "aac", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb"]
SCRAMBLED += ["-encryption_kid", "a7e61c373e219033c21091fa607bf3b8", "-f", "mp4"]


@needs_ffmpeg
def test_an_encrypted_stream_is_known_by_its_sample_entry(tmp_path):
    path = encode(tmp_path / "a.m4a", *SCRAMBLED)
    assert "a.m4a: is encrypted (cenc)" in str(fail(path))
    (tmp_path / "a.m4a").write_bytes(open_bytes(path).replace(b"enca", b"drms"))
    assert "is encrypted (FairPlay)" in str(fail(path))


@needs_ffmpeg
def test_noise_of_scrambled_packets_is_no_audio(tmp_path):
    """The same stream without the word that says so: what a decoder makes of it is other noise each time."""
    path = encode(tmp_path / "a.m4a", *SCRAMBLED)
    (tmp_path / "a.m4a").write_bytes(open_bytes(path).replace(b"enca", b"mp4a").replace(b"sinf", b"free"))
    assert "damaged from end to end" in str(fail(path))


@needs_ffmpeg
@pytest.mark.parametrize("options,name", [(["-c:a", "aac"], "a.m4a"), (["-c:a", "aac"], "a.aac")])
def test_damage_in_the_middle_is_flagged_with_both_lengths(tmp_path, options, name):
    path = encode(tmp_path / name, *options)
    data = bytearray(open_bytes(path))
    third, half = len(data) // 3, len(data) // 2
    data[third:half] = np.random.RandomState(0).bytes(half - third)
    (tmp_path / name).write_bytes(bytes(data))
    with decode(path) as found:
        assert "truncated" in found.flags and 1.5 < found.duration < 2.9
        assert found.declared == (pytest.approx(3.0, abs=0.1) if name == "a.m4a" else None)


@needs_ffmpeg
@pytest.mark.parametrize("every,kept", [(1000, False), (8000, True)])
def test_damage_from_end_to_end_is_a_failure(tmp_path, every, kept):
    path = encode(tmp_path / "a.m4a", "-c:a", "aac", seconds=20)
    data, chance = bytearray(open_bytes(path)), np.random.RandomState(1)
    for at in range(data.index(b"mdat") + 4000, len(data) - 8000, every):
        data[at : at + 4] = chance.bytes(4)
    (tmp_path / "a.m4a").write_bytes(bytes(data))
    if not kept:
        error = fail(path)
        assert error.kind == "decode" and "damaged from end to end" in str(error)
        return
    with decode(path) as found:
        assert "truncated" in found.flags and 18 < found.duration < 20


@needs_ffmpeg
def test_next_to_nothing_of_a_damaged_file_is_a_failure(tmp_path):
    path = encode(tmp_path / "a.m4a", "-c:a", "aac", seconds=30)
    data = bytearray(open_bytes(path))
    start = data.index(b"mdat") + 4 + len(data) // 40
    stop = data.index(b"moov") - 4 if data.index(b"moov") > start else len(data)
    data[start:stop] = bytes(stop - start)
    (tmp_path / "a.m4a").write_bytes(bytes(data))
    error = fail(path)
    assert error.kind == "decode" and error.lasting


@needs_ffmpeg
@pytest.mark.parametrize(
    "options,rate",
    [
        (["-c:a", "ac3", "-b:a", "448k", "-f", "spdif"], 48000),
        (["-c:a", "dca", "-strict", "-2", "-b:a", "754500", "-f", "spdif"], 48000),
        (["-c:a", "dca", "-strict", "-2", "-b:a", "1411200", "-f", "dts"], 44100),
        (["-c:a", "ac3", "-b:a", "448k", "-f", "ac3"], 48000),
        (["-c:a", "ac3", "-b:a", "192k", "-f", "ac3"], 44100),
        (["-c:a", "eac3", "-b:a", "192k", "-f", "eac3"], 48000),
    ],
    ids=["ac3", "dts", "dts-cd", "raw-ac3", "raw-ac3-44", "raw-eac3"],
)
@pytest.mark.parametrize("silence", [0, 5000])
@pytest.mark.parametrize("order", ["<i2", ">i2"])
def test_a_bitstream_inside_a_pcm_wav_is_decoded_as_what_it_is(tmp_path, options, rate, silence, order):
    silence *= "spdif" in options or "dts" in options  # without a frame in its place ffmpeg finds no raw AC-3
    bits = bytes(4 * silence) + open_bytes(encode(tmp_path / "a.bits", *options, rate=rate))
    write(tmp_path / "a.wav", np.frombuffer(bits[: len(bits) // 4 * 4], order).reshape(-1, 2), rate)
    with decode(tmp_path / "a.wav", [(rate, 2)]) as found:
        left = found.wave(rate, 2)[0]
        assert found.flags == [] and found.duration == pytest.approx(3.0, abs=0.05)
        assert np.abs(np.fft.rfft(left[:rate])).argmax() == 440
        assert 0.25 < found.peak < 0.4


@needs_ffmpeg
@pytest.mark.parametrize("rate", [8000, 16000, 32000])
def test_speex_is_as_long_as_it_is_at_any_rate(tmp_path, rate):
    with decode(encode(tmp_path / "a.spx", "-ac", "1", "-c:a", "libspeex", rate=rate), [(rate, 1)]) as found:
        assert found.flags == [] and found.duration == pytest.approx(3.0, abs=0.05)
        assert np.abs(np.fft.rfft(found.wave(rate, 1)[0][:rate])).argmax() in (440, 660)


@needs_ffmpeg
def test_alac_in_caf_and_a_transport_stream_are_whole(tmp_path):
    for name, codec in (("a.caf", "alac"), ("a.ts", "aac")):
        with decode(encode(tmp_path / name, "-c:a", codec)) as found:
            assert "truncated" not in found.flags and found.duration == pytest.approx(3.0, abs=0.1)
