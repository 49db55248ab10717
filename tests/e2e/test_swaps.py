"""Weights and audio that are replaced while a run is under way: no array of one is ever recorded as of the other."""

import hashlib
import os

import harness
import numpy as np
import pytest

A, B = b"weights 1\x01", b"weights 2\x02"  # the last byte is the gain


def swapping(name="swapping", **params):
    return {"name": name, "extractor": "swapping:Swapping", "params": {k: str(v) for k, v in params.items()}}


def hold_to_truth(output, audio):
    """Compare every array with what its record says that it was made of."""
    found = harness.manifest(output)
    for record in found:
        context = harness.read(output / ".consort" / "contexts" / f"{record['context']}.json")
        gains = {hashlib.sha256(content).hexdigest(): content[-1] for content in (A, B)}
        gain = [gains[sha] for sha in context["checkpoint"].values()] or [1]
        (file,) = [p for p in audio.iterdir() if hashlib.sha256(p.read_bytes()).hexdigest() == record["source"]]
        samples = np.frombuffer(file.read_bytes()[44:], "<i2") / 32768
        value = np.load(output / record["path"])
        assert value == pytest.approx(np.abs(samples).max() * gain[0], abs=1e-6), record
    return {(record["model"], record["item"]) for record in found}


@pytest.fixture
def weights(tmp_path):
    """Two files of the same size: the one in use, and the one that takes its place."""
    for name, content in (("a.bin", A), ("b.bin", B)):
        (tmp_path / name).write_bytes(content)
    return tmp_path / "a.bin", tmp_path / "b.bin"


@pytest.mark.parametrize("how", ["rename", "write"])
def test_weights_that_are_replaced_before_they_are_loaded_are_refused(audio, output, weights, how):
    harness.write_wav(audio / "x.wav")
    own, other = weights
    # the first model to load swaps the weights of the second, whose hash is in the plan by then
    first = swapping("first", when="load", source=other, target=own, how=how)
    job = harness.write_job(output, audio, first, swapping("second", checkpoint=own), workers=1)
    done = harness.consort("extract", job)
    assert done.returncode == 1 and "1 changed" in done.stdout, done.stdout + done.stderr
    assert "a.bin was replaced or written to since the run was planned" in done.stdout
    assert hold_to_truth(output, audio) == {("first", "x.wav")}
    again = harness.consort("extract", job)
    assert again.returncode == 0, again.stdout + again.stderr
    assert hold_to_truth(output, audio) == {("first", "x.wav"), ("second", "x.wav")}
    assert np.load(output / "second" / "x.npy") > np.load(output / "first" / "x.npy") * 1.5  # with B


@pytest.mark.parametrize(("how", "count"), [("rename", 3), ("write", 0)])
def test_weights_that_are_replaced_in_mid_run_change_nothing_or_are_refused(audio, output, weights, how, count):
    harness.write_wavs(audio, 3)
    own, other = weights
    model = swapping(checkpoint=own, when="extract", source=other, target=own, how=how)
    job = harness.write_job(output, audio, model, workers=1)
    done = harness.consort("extract", job)
    assert done.returncode == (0 if count else 1), done.stdout + done.stderr
    assert len(hold_to_truth(output, audio)) == count  # by rename the open file is still the one that was hashed
    assert harness.consort("extract", job).returncode == 0
    assert len(hold_to_truth(output, audio)) == 3
    assert {np.load(path).item() > 0.8 for path in (output / "swapping").iterdir()} == {True}  # all with B


@pytest.mark.parametrize("same_time", [True, False])
def test_audio_that_is_replaced_in_mid_run_is_recorded_as_what_it_is_or_refused(audio, output, tmp_path, same_time):
    for n in range(6):
        harness.write_wav(audio / f"{n}.wav", peak=0.2 + 0.02 * n)
    new = harness.write_wav(tmp_path / "new.wav", peak=0.5, seconds=0.5 if same_time else 0.7)
    model = swapping(when="extract", source=new, target=audio / "5.wav")  # a few files are decoded ahead of the first
    job = harness.write_job(output, audio, model, workers=1)
    done = harness.consort("extract", job)
    assert done.returncode == (0 if same_time else 1), done.stdout + done.stderr
    assert len(hold_to_truth(output, audio)) == (6 if same_time else 5)
    assert harness.consort("extract", job).returncode == 0
    assert len(hold_to_truth(output, audio)) == 6
    assert np.load(output / "swapping" / "5.npy") == pytest.approx(0.5, abs=1e-3)


def test_weights_that_are_replaced_between_two_runs_are_found_whatever_their_times_say(audio, output, weights):
    harness.write_wav(audio / "x.wav")
    own, other = weights
    job = harness.write_job(output, audio, swapping(checkpoint=own))
    assert harness.consort("extract", job).returncode == 0
    times = own.stat()
    os.replace(other, own)
    os.utime(own, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = harness.consort("extract", job)
    assert done.returncode == 0 and "1 of 1 items to do" in done.stdout + done.stderr
    assert hold_to_truth(output, audio) == {("swapping", "x.wav")}
