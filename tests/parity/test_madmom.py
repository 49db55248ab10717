"""Our beats and downbeats against those of madmom 0.16.1; data/madmom/README.md says how they were made."""

import os
import typing as tp
import wave
from pathlib import Path

import numpy as np
import pytest

from worker.extractor import Batch
from worker.extractors.madmom import Madmom

DATA = Path(__file__).parent / "data" / "madmom"

pytestmark = pytest.mark.weights


def read_clip() -> np.ndarray:
    with wave.open(str(DATA / "vibe_ace.wav"), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.dtype("<i2")).astype(np.int16)


def lengthen(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([(clip.astype(np.int32) * gain // 4).astype(np.int16) for gain in (4, 3, 4, 2, 4)])


CLIPS: tp.Dict[str, tp.Callable[[], np.ndarray]] = {
    "vibe_ace": read_clip,
    "vibe_ace_long": lambda: lengthen(read_clip()),
}


@pytest.fixture(scope="module")
def model() -> Madmom:
    root = os.environ.get("CONSORT_WEIGHTS")
    if not root:
        pytest.skip("CONSORT_WEIGHTS is not set: no folder with weights")
    folder = Path(root) / "pypi" / "madmom" / "0.16.1"
    found = Madmom()
    files = {checkpoint.file: str(folder / checkpoint.file) for checkpoint in found.checkpoints()}
    absent = [path for path in files.values() if not os.path.exists(path)]
    if absent:
        pytest.skip("no weights at {}".format(absent[0]))
    found.load("cpu", files)
    return found


def extract(model: Madmom, signal: np.ndarray) -> tp.Dict[str, np.ndarray]:
    audio = signal.astype(np.float32)[None, None] / np.float32(32768)
    return model.extract(Batch(audio, np.array([len(signal)]), np.array([0])))


@pytest.mark.parametrize("clip, tolerance", [("vibe_ace", 2e-6), ("vibe_ace_long", 5e-5)])
@pytest.mark.parametrize("output", ["beats", "downbeats"])
def test_equals_upstream(model: Madmom, clip: str, tolerance: float, output: str) -> None:
    found = extract(model, CLIPS[clip]())[output][0]
    with np.load(str(DATA / (clip + ".npz"))) as reference:
        expected = reference[output]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("clip", CLIPS)
def test_beats_are_upstreams(model: Madmom, clip: str) -> None:
    found = model.finish({name: rows[0] for name, rows in extract(model, CLIPS[clip]()).items()})["beat_times"]
    with np.load(str(DATA / "beats.npz")) as reference:
        np.testing.assert_allclose(found, reference[clip], rtol=1e-6)


def drums(seconds: int, period: float, bar: int) -> np.ndarray:
    """Return hits of 50 ms, `period` seconds apart, with a low one at each first of a bar; int16 [N]."""
    wave, rng = np.zeros(44100 * seconds), np.random.RandomState(0)
    decay = np.exp(-np.arange(2205) / 400)
    for number, begin in enumerate(np.arange(0.5, seconds - 0.1, period)):
        low = np.sin(2 * np.pi * 60 * np.arange(2205) / 44100) * 2 if number % bar == 0 else 0
        at = int(begin * 44100)
        wave[at : at + 2205] += decay * (rng.normal(0, 0.3, 2205) + low)
    return (wave / abs(wave).max() * 20000).astype(np.int16)


@pytest.mark.parametrize(("period", "bar"), [(0.5, 4), (0.375, 4), (0.6, 3)])
def test_beats_of_drums_are_found(model: Madmom, period: float, bar: int) -> None:
    activations = {name: rows[0] for name, rows in extract(model, drums(20, period, bar)).items()}
    found = model.finish(activations)["beat_times"][:, 0]
    truth = np.arange(0.5, 19.9, period)
    hits = (abs(truth[:, None] - found).min(axis=1) < 0.07).sum()
    assert 2 * hits / (len(truth) + len(found)) > 0.95  # F-measure with 70 ms


def test_a_single_sample_and_silence_are_computed(model: Madmom) -> None:
    for samples in (1, 44100):
        found = extract(model, np.zeros(samples, np.int16))
        assert len(found["beats"][0]) == -(-samples // 441)
        assert 0 < found["beats"].max() < 0.1
        assert model.finish({name: rows[0] for name, rows in found.items()})["beat_times"].shape == (0, 2)
