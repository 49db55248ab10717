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


def test_a_single_sample_and_silence_are_computed(model: Madmom) -> None:
    for samples in (1, 44100):
        found = extract(model, np.zeros(samples, np.int16))
        assert len(found["beats"][0]) == -(-samples // 441)
        assert 0 < found["beats"].max() < 0.1
