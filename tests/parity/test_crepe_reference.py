"""CREPE's Keras graph with its real weights against the published implementation (see data/crepe/README.md).

The weights are looked for in the folder that the environment variable CONSORT_WEIGHTS names.
"""

import os
import pathlib
import threading

import numpy as np
import pytest

from worker.extractor import Batch
from worker.extractors.crepe import Crepe
from worker.work import extraction

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def reference():
    with np.load(str(pathlib.Path(__file__).parent / "data" / "crepe" / "sweep.npz")) as arrays:
        return dict(arrays)


def load(capacity, device="cpu", **params):
    """Return the extractor, loaded."""
    folder = os.environ.get("CONSORT_WEIGHTS")
    if not folder:
        pytest.skip("CONSORT_WEIGHTS is not set: no folder with weights")
    extractor = Crepe(model_capacity=capacity, **params)
    (checkpoint,) = extractor.checkpoints()
    path = pathlib.Path(folder, checkpoint.kind, checkpoint.name, checkpoint.revision, checkpoint.file)
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    extractor.load(device, {checkpoint.file: str(path)})
    return extractor


def run(extractor, wave):
    return extraction.extract(extractor, wave[np.newaxis], None, "", threading.Event())[0]


@pytest.fixture(scope="module", params=["full", "tiny"])
def capacity(request):
    return request.param


@pytest.fixture(scope="module")
def extractor(capacity):
    return load(capacity, backend="reference")


@pytest.fixture(scope="module")
def outputs(extractor, reference):
    return run(extractor, reference["wave"])


def test_activation(outputs, capacity, reference):
    assert outputs["activation"].shape == (276, 360)
    np.testing.assert_allclose(outputs["activation"][::3], reference[capacity + "_activation"], rtol=0, atol=5e-6)


def test_pitch(extractor, outputs, capacity, reference):
    expected = reference[capacity + "_viterbi"]
    cents = 1200 * np.abs(np.log2(outputs["pitch"][:, 0].astype(np.float64) / expected[:, 0]))
    assert np.mean(cents <= 0.05) >= 0.995
    np.testing.assert_allclose(outputs["pitch"][:, 1], expected[:, 1], rtol=0, atol=5e-6)


def test_both_backends_agree(outputs, capacity, reference):
    fast = run(load(capacity), reference["wave"])
    np.testing.assert_allclose(outputs["activation"], fast["activation"], rtol=0, atol=5e-6)
    np.testing.assert_array_equal(outputs["activation"].argmax(1), fast["activation"].argmax(1))
    cents = 1200 * np.abs(np.log2(outputs["pitch"][:, 0].astype(np.float64) / fast["pitch"][:, 0]))
    assert cents.max() <= 0.05


def test_bytes_do_not_depend_on_the_batch(extractor, reference):
    size = extractor.framing().window
    wave = np.stack([reference["wave"][start : start + size] for start in (0, 5000, 9000)])[:, np.newaxis]
    batch = Batch(wave, np.array([size, size, 1024]), np.array([0, 5000, 9000]))
    together = extractor.extract(batch)["activation"]
    assert together[1].min() > 0 and not together[2, 1:].any()
    for row in range(3):
        alone = Batch(wave[row : row + 1], batch.lengths[row : row + 1], batch.starts[row : row + 1])
        assert extractor.extract(alone)["activation"].tobytes() == together[row : row + 1].tobytes()


def test_a_silent_frame_is_computed(extractor, capacity):
    activation = run(extractor, np.zeros(1600, np.float32))["activation"]
    assert np.isfinite(activation).all() and activation.max() > 0
    np.testing.assert_allclose(activation, np.broadcast_to(activation[:1], activation.shape), rtol=0, atol=1e-6)
    np.testing.assert_allclose(activation, run(load(capacity), np.zeros(1600, np.float32))["activation"], atol=5e-6)


def test_records_name_the_backend():
    assert Crepe().describe() == {"backend": "fast"}
    assert Crepe(backend="reference").describe() == {"backend": "reference"}
    assert load("tiny").describe() == {"backend": "fast"}
    assert load("tiny", backend="reference").describe() == {"backend": "reference"}
