"""CREPE with its real weights against the published implementation (see data/crepe/README.md).

The weights are looked for in the folder that the environment variable CONSORT_WEIGHTS names.
"""

import os
import pathlib
import typing as tp

import numpy as np
import pytest

from worker.extractor import Arrays, Batch
from worker.extractors.crepe import Crepe

pytestmark = pytest.mark.weights

CAPACITIES = ["full", "tiny"]


@pytest.fixture(scope="module")
def reference() -> tp.Dict[str, np.ndarray]:
    with np.load(str(pathlib.Path(__file__).parent / "data" / "crepe" / "sweep.npz")) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=CAPACITIES)
def capacity(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def extractor(capacity: str) -> Crepe:
    """Return the extractor, loaded."""
    folder = os.environ.get("CONSORT_WEIGHTS")
    if not folder:
        pytest.skip("CONSORT_WEIGHTS is not set: no folder with weights")
    extractor = Crepe(model_capacity=capacity)
    (checkpoint,) = extractor.checkpoints()
    path = pathlib.Path(folder, checkpoint.kind, checkpoint.name, checkpoint.revision, checkpoint.file)
    if not path.is_file():
        pytest.skip("{} is not there".format(path))
    extractor.load("cpu", {checkpoint.file: str(path)})
    return extractor


def _make_batch(wave: np.ndarray, extractor: Crepe) -> Batch:
    """Cut [T] as the declaration asks for, without the pipeline, so that a fault there cannot hide here."""
    framing = extractor.framing()
    extended = np.pad(wave, (framing.left, framing.right), mode="constant")
    starts = np.arange(0, len(extended) - 1023, framing.hop)
    lengths = np.minimum(framing.window, len(extended) - starts)
    windows = np.zeros((len(starts), 1, framing.window), np.float32)
    for window, start, length in zip(windows, starts, lengths):
        window[0, :length] = extended[start : start + length]
    return Batch(windows, lengths, starts - framing.left)


def _stitch(activation: np.ndarray, batch: Batch, extractor: Crepe) -> np.ndarray:
    counts = [extractor.framing().frames(int(length)) for length in batch.lengths]
    return np.concatenate([rows[:count] for rows, count in zip(activation, counts)])


@pytest.fixture(scope="module")
def activation(extractor: Crepe, reference: Arrays) -> np.ndarray:
    """Return the activation [276, 360] of the sweep."""
    batch = _make_batch(reference["wave"], extractor)
    return _stitch(extractor.extract(batch)["activation"], batch, extractor)


def _compute_cents(hertz: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(1200 * np.abs(np.log2(hertz / other)))


def test_activation(activation: np.ndarray, capacity: str, reference: Arrays) -> None:
    assert activation.shape == (276, 360)
    np.testing.assert_allclose(activation[::3], reference[capacity + "_activation"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("viterbi", [True, False])
def test_pitch(viterbi: bool, activation: np.ndarray, capacity: str, reference: Arrays) -> None:
    expected = reference[capacity + ("_viterbi" if viterbi else "_argmax")]
    pitch = Crepe(viterbi=viterbi).finish({"activation": activation})["pitch"]
    assert pitch.shape == expected.shape
    cents = _compute_cents(pitch[:, 0].astype(np.float64), expected[:, 0])
    assert np.mean(cents <= 0.05) >= 0.995
    np.testing.assert_allclose(pitch[:, 1], expected[:, 1], rtol=0, atol=5e-6)


def test_frames_do_not_depend_on_the_hop(extractor: Crepe, activation: np.ndarray, reference: Arrays) -> None:
    """Steps of 5.1875 ms (83 samples, no sharing) meet steps of 10 ms (sharing) at frames 0, 83 and 166."""
    other = Crepe(model_capacity=extractor.model_capacity, step_ms=5.1875)
    other._network = extractor._network
    assert other.hop_length == 83
    batch = _make_batch(reference["wave"], other)
    fine = _stitch(other.extract(batch)["activation"], batch, other)
    np.testing.assert_allclose(fine[[0, 160, 320]], activation[[0, 83, 166]], rtol=0, atol=5e-6)


def test_frames_do_not_depend_on_their_block(extractor: Crepe, reference: Arrays) -> None:
    """The same 41 frames at another place of the window, in front of much louder ones."""
    size = extractor.framing().window
    quiet = reference["wave"][:size]
    moved = reference["wave"][20 * 160 :][:size].copy()
    moved[40 * 160 + 1024 :] *= 1e3
    batch = Batch(np.stack([quiet, moved])[:, None], np.array([size, size]), np.array([0, 20 * 160]))
    first, second = extractor.extract(batch)["activation"]
    np.testing.assert_allclose(second[:41], first[20:61], rtol=0, atol=1e-6)
    assert np.abs(second[44:] - first[:20]).max() > 0.1  # the comparison would see another frame


def test_bytes_repeat_and_do_not_depend_on_the_batch(extractor: Crepe, reference: Arrays) -> None:
    batch = _make_batch(reference["wave"], extractor)
    together = extractor.extract(batch)["activation"]
    for row in range(len(batch.wave)):
        alone = Batch(*(array[row : row + 1] for array in batch[:3]))
        assert extractor.extract(alone)["activation"].tobytes() == together[row : row + 1].tobytes()
