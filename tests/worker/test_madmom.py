"""madmom's features against their formula, and the declaration around them, without any weights."""

import typing as tp

import numpy as np
import pytest

from worker.extractor import Batch
from worker.extractors import madmom
from worker.networks import beat_features
from worker.networks.beat_features import BeatFeatures
from worker.networks.peephole_lstm import Direction, Ensemble, LstmNetwork

BANDS = {"beats": (6, 6, 6), "downbeats": (3, 6, 12)}
WIDTH = {"beats": 266, "downbeats": 314}  # what upstream's networks take


def noise(samples: int) -> np.ndarray:
    return np.random.RandomState(samples).randint(-20000, 20000, samples).astype(np.int16)


def naive_filters(size: int, per_octave: int) -> tp.List[np.ndarray]:
    """Return one triangle per band over the bins of the transform."""
    grid = np.arange(size // 2) * 44100.0 / size
    centres = [440 * 2 ** (k / per_octave) for k in range(-10 * per_octave, 10 * per_octave)]
    bins = sorted({int(np.argmin(abs(grid - centre))) for centre in centres if 30 <= centre <= 17000})
    triangles = []
    for low, centre, high in zip(bins, bins[1:], bins[2:]):
        shape = np.interp(np.arange(size // 2), [low, centre, high], [0.0, 1.0, 0.0])
        triangles.append(shape / shape.sum())
    return triangles


def naive_bands(signal: np.ndarray, size: int, per_octave: int) -> np.ndarray:
    padded = np.concatenate([np.zeros(size // 2), signal / 32767.0, np.zeros(size)])
    filters = np.array(naive_filters(size, per_octave))
    rows = []
    for start in range(0, len(signal), 441):
        spectrum = abs(np.fft.fft(padded[start : start + size] * np.hanning(size)))[: size // 2]
        rows.append(np.log10(1 + filters @ spectrum))
    return np.array(rows)


@pytest.mark.parametrize("output", sorted(BANDS))
@pytest.mark.parametrize("samples", [1, 440, 441, 442, 3000, (beat_features.CHUNK + 2) * 441 - 7])
def test_features_equal_their_formula(samples: int, output: str) -> None:
    signal = noise(samples)
    columns = []
    for size, per_octave, lag in zip((1024, 2048, 4096), BANDS[output], (1, 1, 2)):
        bands = naive_bands(signal, size, per_octave)
        rises = np.zeros_like(bands)
        rises[lag:] = np.maximum(bands[lag:] - bands[:-lag], 0)
        columns += [bands, rises]
    found = BeatFeatures(BANDS[output])(signal)
    assert found.dtype == np.float32
    assert found.shape == (-(-samples // 441), WIDTH[output])
    np.testing.assert_allclose(found, np.hstack(columns), rtol=0, atol=2e-6)


def test_chunks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = noise(44100)
    whole = BeatFeatures(BANDS["beats"])(signal)
    monkeypatch.setattr(beat_features, "CHUNK", 7)
    np.testing.assert_allclose(BeatFeatures(BANDS["beats"])(signal), whole, rtol=0, atol=1e-6)


def test_mono_pcm_is_recovered_exactly() -> None:
    steps = np.arange(-32768, 32768).astype(np.int16)
    np.testing.assert_array_equal(madmom.quantize(steps.astype(np.float32) / np.float32(32768)), steps)


def test_stereo_pcm_is_truncated_as_upstream_does() -> None:
    stereo = np.random.RandomState(1).randint(-32768, 32768, (50000, 2)).astype(np.int16)
    stereo[:4] = [[1, 0], [-1, 0], [-32768, -32768], [32767, 32767]]
    wave = (stereo.astype(np.float32) / np.float32(32768)).mean(axis=1, dtype=np.float32)
    np.testing.assert_array_equal(madmom.quantize(wave), np.mean(stereo, axis=1).astype(np.int16))


def test_what_is_too_loud_is_clipped() -> None:
    wave = np.array([1.5, 1.0, -1.0, -1.5], np.float32)
    np.testing.assert_array_equal(madmom.quantize(wave), np.array([32767, 32767, -32768, -32768], np.int16))
    assert wave[0] == 1.5  # the audio belongs to the other models too


def random_network(path: str) -> LstmNetwork:
    """Stand for `read_network`: weights drawn from the number in the file's name."""
    output = "downbeats" if "downbeats" in path else "beats"
    rng = np.random.RandomState(int(path[-5]))
    shapes = ((WIDTH[output], 4, 3), (3, 4, 3), (4, 3), (3, 3))
    pair = tuple(Direction(*[rng.normal(0, 0.3, s).astype(np.float32) for s in shapes]) for _ in range(2))
    count = 3 if output == "downbeats" else 1
    top, bias = rng.normal(0, 1, (6, count)).astype(np.float32), np.zeros(count, np.float32)
    return LstmNetwork(((pair[0], pair[1]),), top, bias, "softmax" if count == 3 else "sigmoid")


def loaded(monkeypatch: pytest.MonkeyPatch, *wanted: str) -> madmom.Madmom:
    monkeypatch.setattr(madmom, "read_network", random_network)
    model = madmom.Madmom().asked(outputs=frozenset(wanted))
    model.load("cpu", {checkpoint.file: checkpoint.file for checkpoint in model.checkpoints()})
    return model


def batch(signal: np.ndarray) -> Batch:
    wave = signal.astype(np.float32)[None, None] / np.float32(32768)
    return Batch(wave, np.array([len(signal)]), np.array([0]))


@pytest.mark.parametrize("samples", [1, 441, 442, 20000])
def test_both_outputs_have_a_frame_every_441_samples(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    frames = loaded(monkeypatch).extract(batch(noise(samples)))
    count = -(-samples // 441)
    assert {name: array.shape for name, array in frames.items()} == {
        "beats": (1, count),
        "downbeats": (1, count, 2),
    }
    assert all(array.dtype == np.float32 for array in frames.values())


def test_columns_are_beat_and_downbeat_without_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = noise(5000)
    model = loaded(monkeypatch, "downbeats")
    networks = [random_network(checkpoint.file) for checkpoint in model.checkpoints()]
    classes = Ensemble(networks)(BeatFeatures(BANDS["downbeats"])(signal))
    np.testing.assert_array_equal(model.extract(batch(signal))["downbeats"][0], classes[:, 1:])


def test_beat_times_need_the_downbeat_networks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(monkeypatch, "beat_times")
    assert {"/downbeats/" in checkpoint.file for checkpoint in model.checkpoints()} == {True}
    found = model.finish({name: rows[0] for name, rows in model.extract(batch(noise(44100))).items()})
    assert found["beat_times"].shape[1] == 2 and "beats" not in found


@pytest.mark.parametrize("wanted", ["beats", "downbeats"])
def test_only_what_is_wanted_is_fetched_and_computed(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    model = loaded(monkeypatch, wanted)
    assert len(model.checkpoints()) == 8
    assert all("/{}/".format(wanted) in checkpoint.file for checkpoint in model.checkpoints())
    assert list(model.extract(batch(noise(100)))) == [wanted]


def test_checkpoints_are_sixteen_pinned_files_not_for_sale() -> None:
    checkpoints = madmom.Madmom().checkpoints()
    assert len({checkpoint.file for checkpoint in checkpoints}) == 16
    assert len({checkpoint.sha256 for checkpoint in checkpoints}) == 16
    assert not any(checkpoint.commercial for checkpoint in checkpoints)
    assert all(checkpoint.archive_sha256 and len(checkpoint.sha256) == 64 for checkpoint in checkpoints)
