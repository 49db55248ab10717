"""What a job takes, and what it says of the rest: by the command that a user types."""

import csv
import random
import subprocess

import harness
import numpy as np
import pytest
import soundfile
from harness import TONE

import orchestrator
from orchestrator.weights.store import Weights
from worker.segment import Segment

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
    assert done.returncode == 1 and "missing     1 items whose file is not there" in done.stdout
    assert harness.written(output) == {(model, item) for model in ("tone", "tokens") for item in ("a.wav", "b.wav")}

    run = orchestrator.load(output)
    both = [{"label": "x", "num_tokens": "2"}, {"label": "y", "num_tokens": "3"}]
    assert run.labels("a.wav") == both and run.labels("b.wav") == {"label": "first", "num_tokens": "1"}
    matrix = run.matrix("tone")
    assert matrix.items == ["a.wav", "a.wav", "b.wav"] and matrix.labels[:2] == both and matrix.values.shape == (3, 2)

    with open(output / "tokens_t.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(row["path"], row["label"], row["num_tokens"], row["consort_num_tokens"]) for row in rows] == [
        ("b.wav", "first", "1", "10"), ("a.wav", "x", "2", "10"), ("a.wav", "y", "3", "10"),
    ]  # fmt: skip


def test_segments_are_what_cutting_by_hand_gives(audio, output, tmp_path):
    """Two hundred rows over twenty files of several rates, and two models."""
    drawn = random.Random(5)
    lines, cuts = ["path,start,end,label"], {}
    for n in range(20):
        rate, name = (8000, 16000, 44100, 22050)[n % 4], f"{n:02d}.wav"
        samples = np.random.default_rng(n).uniform(-0.5, 0.5, (3 * rate, 1 + n % 2)).astype(np.float32)
        soundfile.write(audio / name, samples, rate, subtype="FLOAT")
        for row in range(10):
            start = drawn.randrange(0, 2000) / 1000
            end = start + drawn.choice([0.2, 0.6125, 0.9])
            lines.append(f"{name},{start:.4f},{end:.4f},{row}")
            item = f"{name}#{Segment(start, round(end, 9))}"
            cuts[item] = tmp_path / "cuts" / f"{len(cuts)}.wav"
            cuts[item].parent.mkdir(exist_ok=True)
            soundfile.write(cuts[item], samples[round(start * rate) : round(end * rate)], rate, subtype="FLOAT")
    head, *rows = lines
    drawn.shuffle(rows)
    (audio / "rows.csv").write_text("\n".join([head, *rows]))
    models = [{**TONE, "outputs": ["level", "peak"]}, {"name": "tokens", "extractor": "tokens:Tokens"}]
    done = harness.consort("extract", harness.write_job(output, audio / "rows.csv", *models))
    assert done.returncode == 0, done.stdout + done.stderr
    by_hand = output.with_name("by_hand")
    assert harness.consort("extract", harness.write_job(by_hand, tmp_path / "cuts", *models)).returncode == 0

    mine = {(r["model"], r["output"], r["item"]): r for r in harness.manifest(output)}
    hand = {(r["model"], r["output"], r["item"]): r for r in harness.manifest(by_hand)}
    assert len(mine) == 600
    for (model, name, item), record in mine.items():
        other = hand[model, name, cuts[item].name]
        assert record["sha256"] == other["sha256"] and record["duration"] == other["duration"]
        assert record["key"] != other["key"] and record["segment"] == item.partition("#")[2]
    assert "segment" not in hand["tone", "level", "0.wav"]
    again = harness.consort("extract", output.with_name(f"{output.name}.yaml"))
    assert again.returncode == 0 and "0 of 200 items to do" in again.stdout + again.stderr
    run = orchestrator.load(output)
    assert run.labels(next(iter(cuts)))["label"] == "0" and run.array("tone", next(iter(cuts))).ndim == 2
    assert harness.status(output)["models"]["tone"]["done"] == 200
    assert harness.consort("verify", output, "--recompute", "3").returncode == 0


def test_segments_beside_the_whole_file_and_beyond_its_end(audio, output):
    harness.write_wav(audio / "a.wav", seconds=2.0)
    table = audio / "t.tsv"
    table.write_text(
        "path\tstart\tend\tlabel\na.wav\t\t\tall\na.wav\t0,5\t1.5\tx\na.wav\t1\t\trest\na.wav\t0.5\t1.50\ty\n"
        "a.wav\t1.5\t2.0004\tend\na.wav\t1.5\t2.5\tfar\na.wav\t7\t8\tfarther\n"
    )
    job = harness.write_job(output, table, TONE)
    done = harness.consort("extract", job)
    assert done.returncode == 1, done.stdout + done.stderr
    frames = {r["item"]: (r["shape"][0], r["path"]) for r in harness.manifest(output)}
    assert frames == {
        "a.wav": (20, "tone/a.npy"),
        "a.wav#0.500-1.500": (10, "tone/a#0.500-1.500.npy"),
        "a.wav#1.000-": (10, "tone/a#1.000-.npy"),
        "a.wav#1.500-2.0004": (5, "tone/a#1.500-2.0004.npy"),
    }
    assert harness.failures(output) == {
        ("tone", "a.wav#1.500-2.500"): "decode", ("tone", "a.wav#7.000-8.000"): "decode",
    }  # fmt: skip
    assert "1.500-2.500 lies beyond the end of the file, which is 2.000 s long" in done.stdout
    labels = orchestrator.load(output).labels("a.wav#0.500-1.500")
    assert [row["label"] for row in labels] == ["x", "y"]
    assert harness.consort("extract", job).returncode == 1  # and nothing is tried again
    assert len(harness.manifest(output)) == 4

    whole = output.with_name("whole")
    assert harness.consort("extract", harness.write_job(whole, audio / "a.wav", TONE)).returncode == 0
    (alone,) = harness.manifest(whole)
    beside = next(r for r in harness.manifest(output) if r["item"] == "a.wav")
    assert alone == beside  # the key and every byte
    (audio / "a.wav").unlink()
    assert harness.status(output)["models"]["tone"]["done"] == 4


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.wav,2,1", "line 3 of t.csv: start 2 is not before end 1"),
        ("a.wav,1,1", "line 3 of t.csv: start 1 is not before end 1"),
        ("a.wav,-1,1", "line 3 of t.csv: start '-1' is no number of seconds"),
        ("a.wav,0:01,2", "`start_column: null`"),
        ("a.wav,nan,2", "line 3 of t.csv: start 'nan' is no number of seconds"),
    ],
)
def test_times_that_are_none_are_refused_with_their_line(row, words, audio, output):
    harness.write_wav(audio / "a.wav")
    (audio / "t.csv").write_text(f"path,start,end\na.wav,0,1\n{row}\n")
    done = harness.consort("plan", harness.write_job(output, audio / "t.csv", TONE))
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
