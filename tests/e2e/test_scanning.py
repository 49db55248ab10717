"""What a job takes, and what it says of the rest: by the command that a user types."""

import csv
import subprocess

import harness
import numpy as np
import pytest
import soundfile
from harness import TONE

import orchestrator
from orchestrator.weights.store import Weights

CODECS = {
    "mp2": ["-c:a", "mp2"], "tta": [], "wv": [], "voc": [], "avi": ["-c:a", "mp3"], "ts": ["-c:a", "aac"],
    "bwf": ["-f", "wav"], "mka": ["-c:a", "flac"],
}  # fmt: skip


def test_every_ending_is_taken_and_decoded(audio, output, tmp_path):
    base = harness.write_wav(tmp_path / "base.wav", seconds=1.0)
    for ending, codec in CODECS.items():
        made = [Weights().program(), "-v", "error", "-i", base, *codec, audio / f"{ending}.{ending}"]
        subprocess.run(list(map(str, made)), check=True, stdin=subprocess.DEVNULL)
    soundfile.write(audio / "sph.sph", soundfile.read(base)[0], 16000, format="NIST", subtype="PCM_16")
    (audio / "bwf.bwf").rename(audio / "without")
    done = harness.consort("extract", harness.write_job(output, audio, TONE))
    assert done.returncode == 0, done.stdout + done.stderr
    items = {*(f"{ending}.{ending}" for ending in CODECS if ending != "bwf"), "sph.sph", "without"}
    run = orchestrator.load(output)
    assert set(run.items("tone")) == items
    for item in items:
        np.testing.assert_allclose(run.array("tone", item)[2:8, 0], 0.5 / np.sqrt(2), rtol=0.1)  # lossy ones


@pytest.fixture
def snapshot(tmp_path):
    """Return a folder as the Hugging Face hub's cache lays it out: links to blobs without endings."""
    harness.write_wav(tmp_path / "blobs" / "4f1c")
    folder = tmp_path / "snapshots" / "abc" / "audio"
    folder.mkdir(parents=True)
    (folder / "one.wav").symlink_to("../../../blobs/4f1c")
    return folder.parent


def test_a_snapshot_of_the_hub_is_taken_with_links_follow(snapshot, output):
    job = harness.write_job(output, snapshot, TONE)
    for verb in ("plan", "extract"):
        done = harness.consort(verb, job)
        assert done.returncode == 2 and "`links: follow`" in done.stderr and not output.exists()
    assert harness.consort("extract", job, "--set", "links=follow").returncode == 0
    assert harness.written(output) == {("tone", "audio/one.wav")}
    (snapshot / "audio" / "one.wav").unlink()
    harness.write_wav(snapshot / "audio" / "two.wav")
    job = harness.write_job(output, snapshot, TONE, links="refuse")
    assert harness.consort("extract", job).returncode == 0


def test_what_is_left_out_is_said_by_every_verb(audio, output):
    harness.write_wav(audio / "a.wav")
    for name in ("cover.jpg", ".hidden.wav", "sub/notes.txt"):
        (audio / name).parent.mkdir(exist_ok=True)
        (audio / name).write_bytes(b"text")
    job = harness.write_job(output, audio, TONE, include=["*.wav", "*.flac"])
    lines = [
        "  left out    1 hidden: .hidden.wav",
        "  left out    2 of endings that are no audio's: .jpg, .txt",
        "  left out    1 patterns of `include` that match nothing: *.flac",
    ]
    for verb, target in (("plan", job), ("extract", job), ("status", job), ("status", output)):
        said = harness.consort(verb, target)
        assert said.returncode == 0
        assert [line for line in said.stdout.splitlines() if "left out" in line] == lines
    report = harness.read(harness.runs(output)[-1] / "report.json")
    for found in (report, harness.status(job), harness.status(output)):
        assert found["left_out"][1] == {
            "reason": "of endings that are no audio's",
            "count": 2,
            "examples": [".jpg", ".txt"],
        }


def test_two_rows_of_a_file_are_computed_once_and_both_are_told(audio, output):
    for n, name in enumerate(("a.wav", "b.wav")):
        harness.write_wav(audio / name, pitch=200 + 100 * n)
    (audio / "t.csv").write_text("path;label;num_tokens\nb.wav;first;1\na.wav;x;2\na.wav;y;3\nmissing.wav;z;4\n")
    tokens = {"name": "tokens", "extractor": "tokens:Tokens", "layout": "table"}
    done = harness.consort("extract", harness.write_job(output, audio / "t.csv", {**TONE, "pooling": "mean"}, tokens))
    assert done.returncode == 1 and "1 rows whose file is not there, which will fail: 'missing.wav'" in done.stdout
    assert harness.written(output) == {(model, item) for model in ("tone", "tokens") for item in ("a.wav", "b.wav")}

    run = orchestrator.load(output)
    both = [{"label": "x", "num_tokens": "2"}, {"label": "y", "num_tokens": "3"}]
    assert run.labels("a.wav") == both and run.labels("b.wav") == {"label": "first", "num_tokens": "1"}
    matrix = run.matrix("tone")
    assert matrix.items == ["a.wav", "a.wav", "b.wav"] and matrix.labels[:2] == both and matrix.values.shape == (3, 2)

    with open(output / "tokens_t.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(row["path"], row["label"], row["num_tokens"], row["consort_num_tokens"]) for row in rows] == [
        ("b.wav", "first", "1", "5"), ("a.wav", "x", "2", "5"), ("a.wav", "y", "3", "5"),
    ]  # fmt: skip
