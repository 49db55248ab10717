"""Layouts beyond one array per item: a file per window, a table of tokens; and audio that Consort makes itself."""

import csv

import harness
import numpy as np

TOKENS = {"name": "tokens", "extractor": "tokens:Tokens"}


def table(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_windows_become_files_and_are_done_only_together(audio, output):
    harness.write_wav(audio / "a.wav", seconds=2.5)
    harness.write_wav(audio / "b.wav", seconds=0.5)
    model = {**TOKENS, "window": {"seconds": 1}, "layout": "per-window", "format": "txt"}
    job = harness.write_job(output, audio, model)
    done = harness.consort("extract", job, "--verbose")
    assert done.returncode == 0 and "tokens/a_frag1.txt  (1, 10)" in done.stdout
    names = ["a_frag0.txt", "a_frag1.txt", "a_frag2.txt", "b_frag0.txt"]
    assert sorted(p.name for p in (output / "tokens").iterdir()) == names
    assert np.loadtxt(output / "tokens" / "a_frag0.txt", delimiter=",", ndmin=2).shape == (1, 10)
    before = harness.fingerprint(output)
    assert "2 skipped" not in harness.consort("extract", job).stdout
    assert harness.status(job)["models"]["tokens"] | {"failed": {}} == {
        "done": 2, "pending": 0, "failed": {}, "stale": 0, "orphaned": 0, "waiting": 0, "devices": ["cpu"],
    }  # fmt: skip
    (output / "tokens" / "a_frag1.txt").unlink()
    assert harness.status(job)["models"]["tokens"]["pending"] == 1
    assert harness.consort("extract", job).returncode == 0
    assert harness.fingerprint(output) == before


def test_audio_that_got_shorter_leaves_no_windows_behind(audio, output):
    harness.write_wav(audio / "a.wav", seconds=2.5)
    model = {**TOKENS, "window": {"seconds": 1}, "layout": "per-window"}
    job = harness.write_job(output, audio, model)
    assert harness.consort("extract", job).returncode == 0
    harness.write_wav(audio / "a.wav", seconds=1.5)
    assert harness.consort("extract", job).returncode == 0
    assert sorted(p.name for p in (output / "tokens").iterdir()) == ["a_frag0.npy", "a_frag1.npy"]
    assert [record["windows"] for record in harness.manifest(output)] == [2, 2]


def test_a_table_of_tokens_carries_the_labels_and_grows_with_the_run(audio, output):
    for name, seconds in (("one.wav", 2.0), ("zwei ü.wav", 1.0), ("long.wav", 3.5)):
        harness.write_wav(audio / name, seconds=seconds)
    (audio / "bad.wav").write_bytes(b"RIFF")
    rows = [("fname", "labels"), ("one.wav", "Bark"), ("zwei ü.wav", "Bark,Crow"), ("long.wav", ""), ("bad.wav", "x")]
    listed = audio.parent / "train_curated.csv"
    with open(listed, "w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows(rows)
    model = {**TOKENS, "outputs": ["codes", "starts"], "layout": "table", "window": {"seconds": 2, "hop_seconds": 1.8}}
    job = harness.write_job(output, listed, model, audio_root=str(audio), path_column="fname")
    assert harness.consort("extract", job, "--limit", 2).returncode == 1  # bad.wav is among the first two
    assert len(table(output / "tokens_train_curated.csv")) == 1
    done = harness.consort("extract", job)
    assert done.returncode == 1 and "table: " in done.stdout
    found = {row["fname"]: row for row in table(output / "tokens_train_curated.csv")}
    assert list(found) == ["one.wav", "zwei ü.wav", "long.wav"]
    first = found["zwei ü.wav"]
    assert (first["labels"], first["num_tokens"], first["token_shape"]) == ("Bark,Crow", "20", "(1, 20)")
    assert (first["num_chunks"], first["duration_sec"]) == ("1", "1")
    assert (found["long.wav"]["num_chunks"], found["long.wav"]["num_tokens"]) == ("2", "40")
    assert [first[f"token_{n}"] for n in (0, 19, 20)] == ["7", "0", ""]
    summary = (output / "tokens_train_curated_summary.txt").read_text("utf-8")
    assert "total samples processed: 3" in summary and "(1, 20): 2" in summary and "failed: 1" in summary


def test_a_table_is_for_tokens_and_windows_are_for_models_that_have_them(audio, output):
    harness.write_wav(audio / "a.wav")
    job = harness.write_job(output, audio, {**harness.TONE, "layout": "table"})
    assert "a table holds tokens, and level of tone:Tone are none" in harness.consort("extract", job).stderr
    job = harness.write_job(output, audio, {**harness.TONE, "layout": "per-window"})
    assert "has no output per window" in harness.consort("extract", job).stderr


def test_synthetic_audio_is_made_beside_the_arrays(output):
    job = harness.write_job(output, "synthetic", harness.TONE)
    assert harness.consort("plan", job).returncode == 0 and not output.exists()
    for _ in range(2):
        assert harness.consort("extract", job).returncode == 0
    assert sorted(p.name for p in (output / "tone").iterdir()) == [
        "synthetic_16khz_3.0s.npy",
        "synthetic_16khz_3.0s.wav",
    ]
    assert len(harness.runs(output)) == 2 and len(harness.manifest(output)) == 1
    for target in (job, output):
        state = harness.status(target)["models"]["tone"]
        assert (state["done"], state["pending"], state["orphaned"]) == (1, 0, 0)
    (record,) = harness.manifest(output)
    assert (record["duration"], record["sample_rate"], record["item"]) == (3.0, 16000, "synthetic_16khz_3.0s.wav")


def test_a_table_holds_what_is_there_today(audio, output):
    for name, seconds in (("a.wav", 1.0), ("b.wav", 1.1)):  # of copies the arrays would be copied
        harness.write_wav(audio / name, seconds=seconds)
    job = harness.write_job(output, audio, {**TOKENS, "layout": "table"})
    assert harness.consort("extract", job).returncode == 0
    rows = output / "tokens_audio.csv"
    (output / "tokens" / "a.npy").unlink()
    assert harness.consort("extract", job, "--limit", 0).returncode == 0
    assert [row["path"] for row in table(rows)] == ["b.wav"]
    (audio / "b.wav").write_bytes(b"RIFF")
    assert harness.consort("extract", job).returncode == 1
    assert [row["path"] for row in table(rows)] == ["a.wav"]
    assert "failed: 1" in (output / "tokens_audio_summary.txt").read_text("utf-8")


def test_another_layout_leaves_nothing_of_the_former_one(audio, output):
    harness.write_wav(audio / "a.wav", seconds=2.5)
    files = {}
    for layout in ("per-window", "per-item", "per-window", "table"):
        job = harness.write_job(output, audio, {**TOKENS, "window": {"seconds": 1}, "layout": layout})
        assert harness.consort("extract", job).returncode == 0
        files[layout] = sorted(path.name for path in (output / "tokens").iterdir())
    assert files["per-item"] == files["table"] == ["a.npy"]
    assert files["per-window"] == ["a_frag0.npy", "a_frag1.npy", "a_frag2.npy"]
    assert harness.status(job)["models"]["tokens"]["orphaned"] == 0


def test_skip_existing_wants_every_window(audio, output):
    harness.write_wav(audio / "a.wav", seconds=2.5)
    model = {**TOKENS, "window": {"seconds": 1}, "layout": "per-window"}
    job = harness.write_job(output, audio, model)
    assert harness.consort("extract", job).returncode == 0
    (output / "tokens" / "a_frag2.npy").unlink()
    assert harness.consort("extract", job, "--skip_existing").returncode == 0
    assert (output / "tokens" / "a_frag2.npy").exists()
