"""CREPE's numpy network against a direct convolution, on random weights; and its declaration."""

import typing as tp

import numpy as np
import pytest

from worker.extractor import Batch
from worker.extractors import crepe as declaration
from worker.networks.crepe import CrepeNetwork
from worker.networks.spectral_convolution import SpectralConvolution

CHANNELS = (1, 10, 6, 4, 4, 6, 8)
HOPS = [160, 164, 100, 157, 512, 1024, 1300]  # multiples of 8 and of 4, others, and without overlap


def _make_tensors(seed: int = 1) -> tp.Dict[str, np.ndarray]:
    """Return a state dict with few channels, gains of both signs, and an output that follows the input."""
    random = np.random.RandomState(seed)
    tensors: tp.Dict[str, np.ndarray] = {}
    for layer, (inputs, outputs) in enumerate(zip(CHANNELS, CHANNELS[1:]), 1):
        taps = 512 if layer == 1 else 64
        name, norm = "conv{}".format(layer), "conv{}_BN.".format(layer)
        tensors[name + ".weight"] = (random.randn(outputs, inputs, taps, 1) + 0.1) * 2 / np.sqrt(taps * inputs)
        tensors[name + ".bias"] = random.randn(outputs) * 0.1
        tensors[norm + "weight"] = random.randn(outputs)
        tensors[norm + "bias"] = random.randn(outputs) * 0.1
        tensors[norm + "running_mean"] = random.randn(outputs) * 0.1
        tensors[norm + "running_var"] = random.rand(outputs) + 0.5
    tensors["classifier.weight"] = random.randn(360, 4 * CHANNELS[-1]) * 2
    tensors["classifier.bias"] = random.randn(360)
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def _correlate(signal: np.ndarray, kernel: np.ndarray, left: int, stride: int) -> np.ndarray:
    """Return the cross-correlation of `signal` [L, C_in] with `kernel` [C_out, C_in, K], tap by tap."""
    outputs, _, taps = kernel.shape
    padded = np.pad(signal, ((left, taps), (0, 0)), mode="constant")
    positions = range(0, len(signal), stride)
    result = np.zeros((len(positions), outputs))
    for row, position in enumerate(positions):
        result[row] = np.einsum("kc,ock->o", padded[position : position + taps], kernel)
    return result


def _run_naively(frame: np.ndarray, tensors: tp.Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the activation [360] of one frame [1024] in float64, layer by layer as published."""
    frame = frame.astype(np.float64)
    frame = (frame - frame.mean()) / max(frame.std(), 1e-8)
    signal = frame[:, None]
    for layer in range(1, 7):
        name, norm = "conv{}".format(layer), "conv{}_BN.".format(layer)
        left, stride = (254, 4) if layer == 1 else (31, 1)
        signal = _correlate(signal, tensors[name + ".weight"][..., 0].astype(np.float64), left, stride)
        signal = np.maximum(signal + tensors[name + ".bias"], 0)
        signal = (signal - tensors[norm + "running_mean"]) / np.sqrt(tensors[norm + "running_var"] + 1e-3)
        signal = signal * tensors[norm + "weight"] + tensors[norm + "bias"]
        signal = signal.reshape(-1, 2, signal.shape[1]).max(axis=1)
    logits = signal.reshape(-1) @ tensors["classifier.weight"].T.astype(np.float64) + tensors["classifier.bias"]
    return np.asarray(1 / (1 + np.exp(-logits)))


def _make_wave(frames: int, hop_length: int, seed: int = 2) -> np.ndarray:
    random = np.random.RandomState(seed)
    return random.randn((frames - 1) * hop_length + 1024).astype(np.float32) * 0.1


@pytest.mark.parametrize("length, taps, left", [(128, 64, 31), (32, 64, 31), (8, 64, 31), (20, 7, 3), (9, 5, 0)])
def test_spectral_convolution_equals_direct(length: int, taps: int, left: int) -> None:
    random = np.random.RandomState(length)
    kernel = random.randn(taps, 70, 3).astype(np.float32)
    signals = random.randn(length, 2, 70).astype(np.float32)
    result = SpectralConvolution(kernel, length, left)(signals)
    for number in range(2):
        expected = _correlate(signals[:, number], kernel.transpose(2, 1, 0), left, 1)
        np.testing.assert_allclose(result[:, number], expected, atol=2e-6 * np.abs(expected).max() * np.sqrt(taps))


@pytest.mark.parametrize("hop_length", HOPS)
def test_network_equals_direct_convolution(hop_length: int) -> None:
    tensors = _make_tensors()
    wave = _make_wave(5, hop_length)
    activation = CrepeNetwork(tensors).compute_activation(wave, hop_length)
    frames = [wave[start : start + 1024] for start in range(0, 5 * hop_length, hop_length)]
    expected = np.stack([_run_naively(frame, tensors) for frame in frames])
    assert activation.dtype == np.float32
    assert np.ptp(expected, axis=0).max() > 0.1  # the weights make the input matter
    np.testing.assert_allclose(activation, expected, atol=1e-5)


@pytest.mark.parametrize("offset", [0.05, 0.5, 3.0, 30.0])
def test_offset_does_not_cost_precision(offset: float) -> None:
    tensors = _make_tensors()
    wave = _make_wave(4, 160) + np.float32(offset)
    activation = CrepeNetwork(tensors).compute_activation(wave, 160)
    expected = np.stack([_run_naively(wave[start : start + 1024], tensors) for start in range(0, 640, 160)])
    np.testing.assert_allclose(activation, expected, atol=1e-5 * max(1, offset))


@pytest.mark.parametrize("gain", [1e-6, 1e-8, 1e-10])
def test_normalisation_stops_below_a_deviation_of_1e_8(gain: float) -> None:
    tensors = _make_tensors()
    wave = _make_wave(3, 160) * np.float32(gain)
    activation = CrepeNetwork(tensors).compute_activation(wave, 160)
    expected = np.stack([_run_naively(wave[start : start + 1024], tensors) for start in range(0, 480, 160)])
    np.testing.assert_allclose(activation, expected, atol=1e-5)


def test_silent_frames_are_computed_and_equal() -> None:
    tensors = _make_tensors()
    activation = CrepeNetwork(tensors).compute_activation(np.zeros(1024 + 2 * 160, np.float32), 160)
    np.testing.assert_allclose(activation, [_run_naively(np.zeros(1024), tensors)] * 3, atol=1e-5)


def test_logits_beyond_the_range_of_exp_saturate() -> None:
    tensors = _make_tensors()
    tensors["classifier.bias"] = np.repeat(np.array([-1e4, 1e4], np.float32), 180)
    activation = CrepeNetwork(tensors).compute_activation(_make_wave(1, 160), 160)
    assert activation[0, 0] < 1e-30
    assert activation[0, -1] == 1


@pytest.mark.parametrize("hop_length", HOPS)
def test_frames_do_not_depend_on_their_block(hop_length: int) -> None:
    network = CrepeNetwork(_make_tensors())
    wave = _make_wave(24, hop_length)
    wave[12 * hop_length + 1024 :] *= 1e4  # loud neighbours of the frames compared
    wave[: 4 * hop_length] = 0
    whole = network.compute_activation(wave, hop_length)
    part = network.compute_activation(wave[5 * hop_length : 12 * hop_length + 1024], hop_length)
    np.testing.assert_allclose(whole[5:13], part, atol=1e-5)
    padded = np.zeros_like(wave)
    padded[: 12 * hop_length + 1024] = wave[: 12 * hop_length + 1024]
    np.testing.assert_allclose(network.compute_activation(padded, hop_length)[:13], whole[:13], atol=1e-5)


@pytest.mark.parametrize("hop_length", HOPS)
def test_the_same_call_twice_gives_the_same_bytes(hop_length: int) -> None:
    network = CrepeNetwork(_make_tensors())
    wave = _make_wave(9, hop_length)
    first = network.compute_activation(wave, hop_length).tobytes()
    assert network.compute_activation(wave.copy(), hop_length).tobytes() == first
    spread = np.repeat(wave, 2)[::2]  # the same samples, not next to each other in memory
    assert network.compute_activation(spread, hop_length).tobytes() == first


def _load(monkeypatch: pytest.MonkeyPatch, extractor: declaration.Crepe) -> declaration.Crepe:
    (checkpoint,) = extractor.checkpoints()
    tensors = {"somewhere.pth": _make_tensors()}
    monkeypatch.setattr(declaration, "read_tensors", tensors.__getitem__)
    extractor.load("cpu", {checkpoint.file: "somewhere.pth"})
    return extractor


@pytest.mark.parametrize(
    "step_ms, center, hop_length, frame_rate, start",
    [(10.0, True, 160, 100.0, 0.0), (10, False, 160, 100.0, 0.032), (1.99, True, 31, 16000 / 31, 0.0)],
)
def test_times(step_ms: float, center: bool, hop_length: int, frame_rate: float, start: float) -> None:
    extractor = declaration.Crepe(step_ms=step_ms, center=center)
    assert extractor.hop_length == hop_length
    for output in extractor.outputs()[:2]:
        assert output.frame_rate == pytest.approx(frame_rate)
        assert output.start == pytest.approx(start)


@pytest.mark.parametrize("samples, frames", [(0, 1), (159, 1), (160, 2), (480000, 3001)])
def test_frames_of_an_item_are_those_of_the_published_model(samples: int, frames: int) -> None:
    framing = declaration.Crepe().framing()
    extended = framing.left + samples + framing.right
    assert framing.frames(extended) == frames
    assert framing.frames(framing.window) * 160 == framing.hop  # windows meet without gap or overlap


def test_extract_fills_whole_and_partial_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = _load(monkeypatch, declaration.Crepe(model_capacity="tiny"))
    window = extractor.framing().window
    wave = np.random.RandomState(4).randn(2, 1, window).astype(np.float32)
    wave[1, 0, 1024 + 320 :] = 0
    batch = Batch(wave, np.array([window, 1024 + 320]), np.array([-512, 63 * 160 - 512]))
    activation = extractor.extract(batch)["activation"]
    assert activation.shape == (2, 64, 360)
    assert activation[0].min() > 0
    assert activation[1, :3].min() > 0
    assert not activation[1, 3:].any()
    alone = Batch(wave[1:], batch.lengths[1:], batch.starts[1:])
    assert extractor.extract(alone)["activation"].tobytes() == activation[1:].tobytes()


@pytest.mark.parametrize("viterbi, expected", [(True, [100, 100, 100]), (False, [100, 250, 100])])
def test_finish_reads_pitch_with_and_without_smoothing(viterbi: bool, expected: tp.List[int]) -> None:
    activation = np.zeros((3, 360), np.float32)
    activation[:, 100] = 0.5
    activation[1, 250] = 0.75
    outputs = declaration.Crepe(viterbi=viterbi).finish({"activation": activation})
    cents = 1200 * np.log2(outputs["pitch"][:, 0] / 10)
    np.testing.assert_allclose(cents, 1997.3794084376191 + 20 * np.array(expected), atol=1e-3)
    assert outputs["pitch"].dtype == np.float32
    assert outputs["pitch"][:, 1].tolist() == [0.5, 0.75, 0.5]  # of the frame, wherever the path runs
    assert outputs["activation"] is activation


def test_outputs_are_as_declared() -> None:
    extractor = declaration.Crepe()
    arrays = extractor.finish({"activation": np.full((4, 360), 0.1, np.float32)})
    for output in extractor.outputs():
        array = arrays[output.name]
        assert array.dtype == output.dtype
        assert array.shape == tuple(4 if size is None else size for size in output.shape)
        assert not output.poolable
