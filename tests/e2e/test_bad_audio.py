"""A folder as they are found: thirty good files and ten that are none."""

import os
import pathlib
import wave

import harness
import numpy as np
import pytest
import soundfile
from harness import TONE, failures, naughty, written

MODELS = (TONE, naughty("none"))
NAMES = ("tone", "naughty")


def write_bad(folder: pathlib.Path) -> dict[str, str]:
    """Write ten files that give no audio; return the class of each."""
    good = harness.write_wav(folder / "whole.wav").read_bytes()
    (folder / "whole.wav").unlink()
    contents = {
        "bad_empty.wav": (b"", "empty"),
        "bad_header_only.wav": (good[:44], "empty"),
        "bad_half_a_header.wav": (good[:20], "decode"),
        "bad_page.mp3": (b"<!DOCTYPE html><html><body>404</body></html>", "decode"),
        "bad_text.flac": (b"this is no audio\n" * 100, "decode"),
        "bad_picture.ogg": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "decode"),
        "bad_zeros.flac": (bytes(4096), "decode"),
        "bad_pointer.wav": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "decode"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    soundfile.write(folder / "bad_nan.wav", np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    (folder / "bad_link.wav").symlink_to("nowhere.wav")
    kinds = {name: kind for name, (_, kind) in contents.items()}
    return {**kinds, "bad_nan.wav": "nonfinite", "bad_link.wav": "unreadable"}


def write_good(folder: pathlib.Path) -> list[str]:
    """Write thirty files of several formats, and return their names."""
    harness.write_wavs(folder, 20)
    rng = np.random.default_rng(0)
    for n in range(9):
        path = folder / f"good_{n}.{('flac', 'ogg', 'mp3')[n % 3]}"
        soundfile.write(path, rng.uniform(-0.3, 0.3, (11025, 1 + n % 2)), (22050, 44100, 8000)[n // 3])
    soundfile.write(folder / "good_silence.flac", np.zeros(8000), 16000)
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def mixed(audio):
    """Fill the folder; return the good names and the classes of the bad ones."""
    good = write_good(audio)
    assert len(good) == 30
    bad = write_bad(audio)
    assert len(bad) == 10
    return good, bad


def test_thirty_good_and_ten_bad_files(mixed, audio, output):
    good, bad = mixed
    job = harness.write_job(output, audio, *MODELS)
    done = harness.consort("extract", job, "--verbose")
    assert done.returncode == 1, done.stderr
    assert written(output) == {(model, item) for model in NAMES for item in good}
    assert failures(output) == {(model, item): kind for model in NAMES for item, kind in bad.items()}
    assert all(name in done.stdout for name in bad), "the report names each with its reason"

    shown = harness.consort("status", job, "--verbose").stdout
    for item, kind in bad.items():
        (line,) = [line for line in shown.splitlines() if item in line]
        assert kind in line and len(line) > len(kind) + len(item) + 20, "a class and a reason"

    again = harness.consort("extract", job)
    assert again.returncode == 1
    assert harness.launched(output) == []
    assert "10 earlier" in again.stdout

    retried = harness.consort("extract", job, "--retry-failed")
    assert retried.returncode == 1
    tried = {item["id"] for shard in harness.launched(output) for item in harness.read(shard)["items"]}
    assert tried == set(bad)


def test_a_mended_file_is_done_by_the_next_run(mixed, audio, output):
    job = harness.write_job(output, audio, TONE)
    assert harness.consort("extract", job).returncode == 1
    harness.write_wav(audio / "bad_half_a_header.wav")
    assert harness.consort("extract", job).returncode == 1
    assert ("tone", "bad_half_a_header.wav") in written(output)
    assert len(harness.status(job)["failures"]) == 9


def test_limit_goes_on_where_it_stopped(mixed, audio, output):
    good, bad = mixed
    job = harness.write_job(output, audio, *MODELS)
    handled = 0
    for _ in range(4):
        done = harness.consort("extract", job, "--limit", 10)
        assert done.returncode in (0, 1), done.stderr
        pending = harness.status(job)["models"]["tone"]["pending"]
        handled += 10
        assert pending == 40 - handled
        assert (f"limit: {pending} more to do; repeat" in done.stdout) == (pending > 0)
    assert written(output) == {(model, item) for model in NAMES for item in good}
    assert len(failures(output)) == 2 * len(bad)
    assert harness.consort("extract", job, "--limit", 10).returncode == 1
    assert harness.launched(output) == []


def test_a_folder_of_bad_files_only(audio, output):
    bad = write_bad(audio)
    job = harness.write_job(output, audio, TONE)
    done = harness.consort("extract", job)
    assert done.returncode == 1, done.stderr
    assert failures(output) == {("tone", item): kind for item, kind in bad.items()}
    assert harness.manifest(output) == []


def test_odd_names_and_kinds_of_files(audio, output):
    """Not one of them may stop the others, or be waited for."""
    names = ["with space.wav", "ünïcode/ß.wav", "quote'\"$(x).wav", "a.b.c.wav", "-dash.wav", "deep/er/est/x.WAV"]
    for n, name in enumerate(names):
        harness.write_wav(audio / name, pitch=300 + n)
    (audio / "folder.wav").mkdir()
    harness.write_wav(audio / "twin.wav")
    soundfile.write(audio / "twin.flac", np.zeros(8000), 16000)
    with wave.open(str(audio / "bytes\udcff.wav"), "wb") as f:
        f.setparams((2, 2, 8000, 0, "NONE", ""))
        f.writeframes(bytes(range(256)) * 64)
    os.mkfifo(audio / "pipe.wav")
    (audio / "outside.wav").symlink_to(harness.write_wav(audio.with_name("private.wav")))
    done = harness.consort("extract", harness.write_job(output, audio, TONE), timeout=30)
    assert done.returncode == 1, done.stdout + done.stderr
    assert failures(output) == {("tone", "pipe.wav"): "unreadable"}
    assert (
        "left out    1 links that lead out of the audio folder (`links: follow` takes them): outside.wav" in done.stdout
    )
    items = {item for _, item in written(output)}
    assert items == {*names, "twin.wav", "twin.flac", "bytes\udcff.wav"}
    assert (output / "tone" / "twin.wav.npy").is_file() and (output / "tone" / "twin.flac.npy").is_file()
    assert harness.leftovers(output) == []
