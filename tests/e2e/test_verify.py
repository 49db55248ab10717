"""`consort verify` on what real runs have written: damage, repair, items computed again, two runs compared."""

import hashlib
import json
import os
import shlex
import shutil

import harness
import numpy as np
import pytest
from harness import TONE

ITEMS = [f"good_{n:02d}.wav" for n in range(4)]
TOKENS = {"name": "tokens", "extractor": "tokens:Tokens"}
BOTH = {**TONE, "outputs": ["level", "peak"]}


@pytest.fixture
def run(audio, output):
    """Return the job file of a finished run of four items, two arrays each."""
    harness.write_wavs(audio, 4)
    job = harness.write_job(output, audio, BOTH)
    extract(job)
    return job


def extract(job, *flags):
    done = harness.consort("extract", job, *flags)
    assert done.returncode == 0, done.stdout + done.stderr


def verify(code, *arguments):
    """Run the command, which must end with `code` and without a traceback; return what it prints."""
    done = harness.consort("verify", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout or done.stderr


def told(code, *arguments):
    return json.loads(verify(code, *arguments, "--json"))


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def rewrite(output, change):
    """Rewrite the manifest's lines."""
    lines = [change(record) for record in harness.manifest(output)]
    text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    (output / "manifest.jsonl").write_text(text, "ascii")


def tamper(output, item, step):
    """Change a value of an array, and the manifest with it, so that no hash shows it."""
    path = output / "tone" / item.replace(".wav", ".npy")
    values = np.load(path)
    values[0, 0] += step
    np.save(path, values)
    facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    rewrite(output, lambda line: {**line, **(facts if line["path"] == f"tone/{path.name}" else {})})


def made_elsewhere(output, **facts):
    """Let all contexts say that the arrays were made in another way."""
    names = {}
    for path in (output / ".consort/contexts").iterdir():
        context = {**harness.read(path), **facts}
        text = json.dumps(context, sort_keys=True, separators=(",", ":"))
        names[path.stem] = hashlib.sha256(text.encode()).hexdigest()
        path.with_name(f"{names[path.stem]}.json").write_text(text, "ascii")
        path.unlink()
    rewrite(output, lambda line: {**line, "context": names[line["context"]]})


def test_damage_is_found_repaired_and_extracted_again(run, output):
    assert "8 of 8 arrays" in verify(0, output) and "8 of 8 arrays" in verify(0, run)
    before = harness.fingerprint(output)
    flip(output / "tone/good_00.npy")
    with open(output / "tone.peak/good_01.npy", "r+b") as f:
        f.truncate(100)
    (output / "tone/good_02.npy").unlink()
    (output / "tone/stranger.npy").write_bytes(b"mine")
    found = told(1, output)
    kinds = {problem["path"]: problem["kind"] for problem in found["problems"]}
    expected = {"tone/good_00.npy": "hash", "tone.peak/good_01.npy": "size", "tone/good_02.npy": "missing"}
    assert kinds == expected and found["orphans"] == ["tone/stranger.npy"]
    assert "removed: tone/good_00.npy" in verify(1, output, "--repair")
    extract(run)
    assert "1 orphaned" in verify(0, output)
    (output / "tone/stranger.npy").unlink()
    assert harness.fingerprint(output) == before


def test_the_command_that_is_named_next_makes_everything_again(run, output):
    before = harness.fingerprint(output)
    moved = output.with_name("moved to here")
    output.rename(moved)
    flip(moved / "tone/good_03.npy")
    (context,) = (moved / ".consort/contexts").iterdir()
    context.write_text("{}", "ascii")
    (words,) = [line for line in verify(1, moved, "--repair").splitlines() if line.startswith("next:")]
    command = words.partition("`consort extract ")[2].partition("`")[0]
    extract(*shlex.split(command))
    assert verify(0, moved) and harness.fingerprint(moved) == before and not output.exists()


def test_arrays_of_a_run_that_was_killed_are_verified_before_they_are_folded(audio, output, start):
    harness.write_wavs(audio, 20)
    job = harness.write_job(output, audio, {**TONE, "params": {"pause": 1.0}}, workers=1)
    running = start("extract", job)
    harness.until(lambda: list(output.glob("tone/*.npy")) and running.process.poll() is None)
    assert "a run is writing here" in verify(4, output)
    for pid in running.kill():
        harness.until(lambda pid=pid: not harness.alive(pid))
    assert not (output / "manifest.jsonl").exists()
    found = told(0, output)
    assert 1 <= found["arrays"] < 20 and found["orphans"] == []
    flip(next(iter(output.glob("tone/*.npy"))))
    verify(1, output)


def test_items_computed_again_are_equal_to_the_byte(run, output):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    found = told(0, output, "--recompute", 2)
    assert (found["items"], found["alike"], found["counts"]) == (["good_01.wav", "good_03.wav"], 4, {"equal": 4})
    assert told(0, run, "--recompute", 2, "--seed", 7)["items"] == told(0, run, "--recompute", 2, "--seed", 7)["items"]
    text = verify(0, output, "--recompute", 99, "--runtime", "venv")
    assert "items computed again: 4 (runtime venv" in text and "the same: 8 arrays to the byte" in text
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_what_was_changed_with_its_hash_is_found_by_computing_it_again(run, output):
    tamper(output, "good_01.wav", 0.1)
    tamper(output, "good_02.wav", 1e-6)
    verify(0, output)  # hashes cannot show it
    found = told(1, output, "--recompute", 4)
    assert found["counts"] == {"equal": 6, "values": 1, "bytes": 1}
    assert {d["item"]: d["kind"] for d in found["differences"]} == {"good_01.wav": "values", "good_02.wav": "bytes"}
    assert told(1, output, "--recompute", 4, "--tolerance")["counts"] == {"equal": 6, "values": 1, "close": 1}
    (output / "tone/good_01.npy").unlink()
    extract(run)  # as the last line says
    verify(0, output, "--recompute", 4, "--tolerance")


@pytest.mark.parametrize("facts", [{"worker": "w"}, {"lock": "l"}, {"device": "cuda NVIDIA H200"}], ids=str)
def test_what_was_made_in_another_way_is_held_to_the_tolerance(facts, run, output):
    made_elsewhere(output, **facts)
    tamper(output, "good_02.wav", 1e-6)
    found = told(0, output, "--recompute", 4)
    assert (found["alike"], found["unlike"]) == (0, {next(iter(facts)): 8})
    assert found["counts"] == {"equal": 7, "close": 1}
    assert found["differences"][0]["largest"] == pytest.approx(1e-6, rel=0.1)
    tamper(output, "good_02.wav", 1e-4)
    assert told(1, output, "--recompute", 4)["counts"] == {"equal": 7, "values": 1}


def test_what_the_job_cannot_make_again_is_told(run, output, audio):
    other = harness.write_job(output.with_name("more"), audio, {**TONE, "name": "twice", "params": {"gain": 2}})
    extract(other, "--output", output)
    found = told(0, output, "--recompute", 1)  # the job of the last run
    assert found["left_out"] == ["tone.level", "tone.peak"] and found["counts"] == {"equal": 1}
    assert told(0, run, "--recompute", 1)["left_out"] == ["twice.level"]
    harness.write_wav(audio / "good_00.wav", pitch=333)
    (audio / "good_01.wav").write_bytes(b"RIFF no more")
    found = told(1, run, "--recompute", 4)
    texts = {difference["item"]: difference["text"] for difference in found["differences"]}
    assert found["counts"] == {"key": 2, "gone": 2, "equal": 4}
    assert "another source" in texts["good_00.wav"] and "not computed again" in texts["good_01.wav"]
    assert "no Docker engine answers" in verify(
        3, output, "--recompute", 1, "--runtime", "docker"
    )  # which these tests hide
    shutil.rmtree(audio)
    assert "nothing of what was read" in verify(2, output, "--recompute", 1)


def test_windows_tables_and_names_that_collide_are_found_again(audio, output, tmp_path):
    for name, seconds in (("a.wav", 2.5), ("a.WAV", 1.2), ("deep/b c.wav", 0.5)):
        harness.write_wav(audio / name, seconds=seconds)
    (tmp_path / "table.csv").write_text("path,label\na.wav,x\na.WAV,y\ndeep/b c.wav,z\n", "ascii")
    windows = {**TOKENS, "window": {"seconds": 1}, "layout": "per-window", "format": "txt"}
    table = {**TOKENS, "name": "table", "layout": "table"}
    job = harness.write_job(output, tmp_path / "table.csv", windows, table, audio_root=str(audio), limit=2)
    extract(job)
    extract(job)
    found = told(0, output, "--recompute", 3)
    assert found["counts"] == {"equal": 6 + 3} and found["checked"][0]["orphans"] == []
    (output / "tokens/deep/b c_frag0.txt").write_text("1,2\n", "ascii")
    assert [p["path"] for p in told(1, output, "--repair")["problems"]] == ["tokens/deep/b c_frag0.txt"]
    extract(job)
    verify(0, output)


def test_audio_that_consort_makes_itself_is_computed_again(output):
    extract(harness.write_job(output, "synthetic", TONE))
    assert told(0, output, "--recompute", 1)["counts"] == {"equal": 1}


def test_two_runs_of_a_job_are_the_same(run, output, tmp_path):
    extract(run, "--output", tmp_path / "again", "--workers", 1)
    assert "the same: 8 arrays to the byte" in verify(0, output, tmp_path / "again")
    flip(tmp_path / "again/tone/good_00.npy")
    assert "damaged" in verify(1, output, tmp_path / "again")


def test_two_runs_with_other_parameters_are_not(run, output, tmp_path):
    extract(run, "--output", tmp_path / "louder", "--set", "tone.params.gain=2", "--limit", 3)
    found = told(1, output, tmp_path / "louder", "--tolerance", 1000)
    assert found["counts"] == {"key": 6, "gone": 2}
    assert {d["item"] for d in found["differences"] if d["kind"] == "gone"} == {ITEMS[3]}


def test_two_runs_with_a_tiny_difference_are_the_same_only_within_a_tolerance(run, output, tmp_path):
    extract(run, "--output", tmp_path / "again")
    tamper(tmp_path / "again", "good_02.wav", 1e-6)
    text = verify(1, output, tmp_path / "again")
    assert "tone.level of good_02.wav" in text and "--tolerance" in text
    text = verify(0, output, tmp_path / "again", "--tolerance")
    assert "7 arrays to the byte, 1 within the tolerance 1e-05" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("tone   level"))
    assert float(row[-1]) == pytest.approx(1e-6, rel=0.1)
    verify(1, output, tmp_path / "again", "--tolerance=1e-8")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_is_verified(run, output):
    for folder, _, _ in os.walk(output):
        os.chmod(folder, 0o555)
    verify(0, output, "--recompute", 1)
    for folder, _, _ in os.walk(output):
        os.chmod(folder, 0o755)
