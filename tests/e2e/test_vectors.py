"""Every model gives a classifier one vector per item: those of crepe and madmom, and the beats, by the command."""

import wave

import harness
import numpy as np
import pytest

import orchestrator

RATE = 44100


@pytest.fixture(scope="module", autouse=True)
def everything():
    """Build and fetch what the job needs."""
    for arguments in (["envs", "build", "tf-cuda"], ["weights", "pull", "crepe", "madmom", "ffmpeg"]):
        done = harness.consort(*arguments, timeout=1500)
        assert done.returncode == 0, done.stderr


def write(path, signal):
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, RATE, 0, "NONE", ""))
        f.writeframes((np.clip(signal, -1, 1) * 32767).astype("<i2").tobytes())


def drums(seconds):
    """Return hits every half second, with a low one at each fourth."""
    signal, rng = np.zeros(RATE * seconds), np.random.RandomState(0)
    time = np.arange(2205) / RATE
    for number, begin in enumerate(np.arange(0.5, seconds - 0.1, 0.5)):
        low = np.sin(2 * np.pi * 60 * time) if number % 4 == 0 else 0
        signal[int(begin * RATE) :][:2205] += np.exp(-time * 110) * (rng.normal(0, 0.15, 2205) + low) * 0.6
    return signal


def test_beats_and_summaries_are_written_and_feed_a_classifier(audio, output):
    write(audio / "drums.wav", drums(12))
    write(audio / "silence.wav", np.zeros(RATE))
    write(audio / "tone.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE))
    pitch = {"name": "crepe", "params": {"model_capacity": "tiny"}, "outputs": ["pitch", "summary"]}
    beats = {"name": "madmom", "outputs": ["beat_times", "summary"], "dtype": "float16"}
    job = harness.write_job(output, audio, pitch, beats)
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stdout + done.stderr
    run = orchestrator.load(output)
    found = run.array("madmom.beat_times", "drums.wav")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], np.arange(0.5, 0.5 + len(found) / 2, 0.5), atol=0.03)
    assert len(found) >= 22 and set(found[:, 1]) <= {1, 2, 3, 4}
    assert run.array("madmom.beat_times", "silence.wav").shape == (0, 2)
    matrix = run.matrix("crepe.summary", "madmom.summary")
    assert matrix.values.shape == (3, 15) and np.isfinite(matrix.values).all()
    of = dict(zip(matrix.items, matrix.values, strict=True))
    assert of["drums.wav"][9] == pytest.approx(120, abs=1) and not of["silence.wav"].any()
    assert of["tone.wav"][0] == pytest.approx(440, rel=0.01) and of["tone.wav"][2] > 0.9
    with pytest.raises(ValueError, match=r"crepe: arrays of different lengths.* crepe.summary is one vector per item"):
        run.matrix("crepe")
    assert harness.consort("verify", output).returncode == 0
    again = harness.consort("extract", job)
    assert again.returncode == 0 and harness.status(job)["models"]["madmom"]["pending"] == 0
    refused = harness.consort("plan", job, "--set", "crepe.outputs=[pitch]", "--set", "crepe.pooling=mean")
    assert refused.returncode == 2 and "cannot be pooled; use none, or `outputs: [summary]`" in refused.stderr
