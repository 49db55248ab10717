"""Sources that are not what they seem, after public bug reports: each is taken, refused or flagged, and said."""

import os
import pathlib
import struct
import subprocess
import typing as tp

import cached
import harness
import numpy as np
import pytest
import soundfile
from harness import TONE

RATE = 16000
# name -> flags and seconds, or the class and words of the failure
RIGHT: dict[str, tuple[tp.Any, tp.Any]] = {
    "base.wav": (["duplicates"], 3.0),
    "copy.flac": (["duplicates"], 3.0),
    "more_than_declared.wav": (["trailing_data", "duplicates"], 10.0),
    "two_chunks.wav": (["trailing_data", "duplicates"], 10.0),
    "declares_1s.au": (["trailing_data", "duplicates"], 10.0),
    "declares_1s.caf": (["trailing_data", "duplicates"], 10.0),
    "declares_1s.flac": (["trailing_data", "duplicates"], 10.0),
    "behind_list.wav": (["trailing_data"], 1.0),
    "joined.m4a": (["trailing_data"], 3.0),
    "rotten.flac": (["damaged"], 10.0),
    "tag_over_half.mp3": ([], 12.0),
    "two_tracks.mka": (["length_unverified", "other_tracks"], 3.0),
    "float_int_range.wav": (["over_range"], 3.0),
    "int32_range.wav": ("nonfinite", "was it written as integers?"),
    "encrypted.m4a": ("decode", "is encrypted (cenc)"),
    "corrupt_middle.m4a": (["truncated"], 2.5),
    "cut_half.mp3": (["truncated"], 5.93),
    "stream_7ffff000.wav": (["duplicates"], 3.0),
    "stream_80000000.wav": (["duplicates"], 3.0),
    "alac.caf": (["duplicates"], 3.0),
    "250Hz.wav": ([], 60.0),
    "clipped.wav": (["clipped"], 1.0),
    "silent.wav": (["silent"], 1.0),
    "short.wav": (["padded"], 0.05),
    "x.tta": (["duplicates", "length_unverified"], 3.0),
}


def tone(seconds: float = 3.0, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def riff(declared: int, seconds: float) -> bytes:
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return head + struct.pack("<4sI", b"data", declared) + (tone(seconds) * 32767).astype("<i2").tobytes()


def encode(source: pathlib.Path, name: str, *options: str) -> bytearray:
    """Return what ffmpeg makes of a file beside it; the encoded file stays there."""
    command = [str(cached.decoder()), "-nostdin", "-v", "error", "-bitexact", "-i", str(source), *options]
    subprocess.run([*command, str(source.with_name(name))], check=True)
    return bytearray(source.with_name(name).read_bytes())


def write_plain(folder: pathlib.Path) -> None:
    """Write what needs no encoder."""
    soundfile.write(folder / "base.wav", (tone() * 32767).astype(np.int16), RATE)
    soundfile.write(folder / "copy.flac", (tone() * 32767).astype(np.int16), RATE)
    for name, scale in (("float_int_range.wav", 32767), ("int32_range.wav", 2.0**31)):
        soundfile.write(folder / name, tone() * scale, RATE, subtype="FLOAT")
    soundfile.write(folder / "250Hz.wav", tone(60, 250, 20), 250)
    soundfile.write(folder / "clipped.wav", np.clip(10 * tone(1.0, hz=330), -1, 1), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "short.wav", tone(0.05), RATE)
    (folder / "more_than_declared.wav").write_bytes(riff(2 * RATE, 10))
    for declared in (0x7FFFF000, 0x80000000):
        (folder / f"stream_{declared:08x}.wav").write_bytes(riff(declared, 3))


def write_lies(folder: pathlib.Path) -> None:
    """Write ten seconds under headers that say one, and the same rotten."""
    whole = riff(2 * RATE, 10)
    head, samples, second = whole[:44], whole[44:], 2 * RATE
    rest = struct.pack("<4sI", b"data", len(samples) - second) + samples[second:]
    (folder / "two_chunks.wav").write_bytes(head + samples[:second] + rest)
    info = struct.pack("<4sI4s", b"LIST", 4, b"INFO")
    (folder / "behind_list.wav").write_bytes(head + samples[:second] + info + samples[second:])
    pcm = np.frombuffer(samples, "<i2")
    for name, ahead, form, declared in (
        ("declares_1s.au", 8, ">I", second),
        ("declares_1s.caf", None, ">q", second + 4),
        ("declares_1s.flac", 22, ">I", RATE),
    ):
        soundfile.write(folder / name, pcm, RATE, subtype="PCM_16")
        data = bytearray((folder / name).read_bytes())
        struct.pack_into(form, data, data.index(b"data") + 4 if ahead is None else ahead, declared)
        (folder / name).write_bytes(data)
    soundfile.write(folder / "rotten.flac", pcm, RATE, subtype="PCM_16")
    data = bytearray((folder / "rotten.flac").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "rotten.flac").write_bytes(data)


def write_encoded(folder: pathlib.Path, aside: pathlib.Path) -> None:
    """Write what an encoder makes, and break some of it."""
    soundfile.write(aside / "stereo.wav", np.stack([tone(3, 44100), tone(3, 44100, 660)], 1), 44100)
    soundfile.write(aside / "long.wav", tone(12, 44100), 44100)
    key = ("-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb", "-encryption_kid", "a7e61c373e219033c21091fa607bf3b8")
    scheme = ("-encryption_scheme", "cenc-aes-ctr", *key)
    (folder / "encrypted.m4a").write_bytes(encode(aside / "stereo.wav", "x.mp4", "-c:a", "aac", *scheme))
    data = encode(aside / "stereo.wav", "x.m4a", "-c:a", "aac", "-b:a", "96k")
    third, half = len(data) // 3, len(data) // 2
    data[third:half] = np.random.default_rng(7).bytes(half - third)
    (folder / "corrupt_middle.m4a").write_bytes(data)
    (folder / "joined.m4a").write_bytes(encode(aside / "stereo.wav", "y.m4a", "-c:a", "aac") * 2)
    data = encode(aside / "long.wav", "y.mp3", "-c:a", "libmp3lame", "-id3v2_version", "0")
    size = bytes(len(data) // 2 >> shift & 127 for shift in (21, 14, 7, 0))
    (folder / "tag_over_half.mp3").write_bytes(b"ID3\x04\0\0" + size + data)
    tracks = encode(aside / "stereo.wav", "two.mka", "-map", "0:a", "-map", "0:a", "-c:a", "flac")
    (folder / "two_tracks.mka").write_bytes(tracks)
    data = encode(aside / "long.wav", "x.mp3", "-c:a", "libmp3lame", "-q:a", "4")
    (folder / "cut_half.mp3").write_bytes(data[: len(data) // 2])
    (folder / "alac.caf").write_bytes(encode(folder / "base.wav", "alac.caf", "-c:a", "alac"))
    (folder / "x.tta").write_bytes(encode(folder / "base.wav", "x.tta"))


class Ran(tp.NamedTuple):
    """A run over all of them, and a second one."""

    output: pathlib.Path
    job: pathlib.Path
    first: "subprocess.CompletedProcess[str]"
    again: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("flagged")
    for name in ("audio", "aside"):
        (folder / name).mkdir()
    write_plain(folder / "audio")
    write_lies(folder / "audio")
    write_encoded(folder / "audio", folder / "aside")
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in RIGHT))
    assert sorted(os.listdir(folder / "audio")) == sorted(RIGHT)
    job = harness.write_job(folder / "out", folder / "list.txt", TONE, audio_root=str(folder / "audio"))
    first = harness.consort("extract", job)
    return Ran(folder / "out", job, first, harness.consort("extract", job, "--verbose"))


@pytest.mark.parametrize("name", RIGHT)
def test_each_is_taken_refused_or_flagged(ran, name):
    right, more = RIGHT[name]
    (record,) = [r for r in harness.manifest(ran.output) if r["item"] == name] or [None]
    if isinstance(right, str):
        (failure,) = [f for f in harness.status(ran.job)["failures"] if f["item"] == name]
        assert record is None and failure["kind"] == right and more in failure["message"]
        return
    assert record["flags"] == [flag for flag in right if flag != "duplicates"]
    assert record["duration"] == pytest.approx(more, abs=0.1)
    flagged = harness.status(ran.job)["flagged"]
    assert [flag for flag in sorted(flagged) if name in flagged[flag]] == sorted(right)


def test_both_lengths_and_the_peak_are_in_the_record(ran):
    records = {record["item"]: record for record in harness.manifest(ran.output)}
    cut = records["cut_half.mp3"]
    assert 5.9 < cut["duration"] < 6.0 and cut["declared"] == pytest.approx(12.0, abs=0.05)
    assert records["float_int_range.wav"]["peak"] == pytest.approx(9830, abs=1)
    assert records["more_than_declared.wav"]["declared"] == 1.0
    assert records["base.wav"]["samples"] == records["copy.flac"]["samples"] != cut["samples"]


def test_half_a_file_is_never_plain_done(ran):
    """A run, one that finds nothing to do, status, and what a program reads: all of them say it."""
    sums = (
        "2 truncated, 1 damaged, 7 trailing_data, 1 over_range, 1 clipped, 1 silent, 1 padded, 2 length_unverified,"
        " 1 other_tracks, 11 duplicates"
    )
    status = harness.consort("status", ran.job).stdout
    for shown in (ran.first.stdout, ran.again.stdout, status):
        assert shown.rstrip().endswith(f"flagged: {sums}")
        assert "cut_half.mp3: 5.9" in shown and "s of the 12.0" in shown
        told = "float_int_range.wav: the audio peaks at 9830, full scale is 1.0: was it written as integers?"
        assert (told if shown == ran.again.stdout else "... and 1 more; --verbose lists them all") in shown
    assert "23 (1 damaged, 1 over_range, 7 trailing_data, 2 truncated)" in ran.first.stdout
    assert "23 (2 truncated, 1 damaged, 7 trailing_data, 1 over_range)" in status
    counts = {flag: int(number) for number, flag in (part.split() for part in sums.split(", "))}
    for run in harness.runs(ran.output):
        report = harness.read(run / "report.json")
        assert report["flags"] == counts
        assert {flag: len(items) for flag, items in report["flagged"].items()} == counts
    assert harness.status(ran.job)["flags"]["tone"] == counts


def test_verbose_names_them_all(ran):
    for shown in (ran.again.stdout, harness.consort("status", ran.job, "--verbose").stdout):
        lines = [line.split()[:2] for line in shown.splitlines()]
        for name, (flags, _) in RIGHT.items():
            for flag in flags if isinstance(flags, list) else ():
                assert [flag, name] in [[words[0], words[1].rstrip(":")] for words in lines if len(words) > 1]
        assert "copy.flac: same samples as " in shown
    assert "clipped.wav" not in ran.first.stdout
