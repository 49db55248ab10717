"""One-dimensional convolution in the frequency domain, as matrix products and nothing else.

A kernel nearly as long as the signal costs `length * taps` products per pair of channels when applied
directly, and one complex product per frequency after a Fourier transform along the signal. The
transform is a matrix product too: at these lengths (8 .. 128) BLAS beats any FFT, and it transforms
all channels of all frames at once.
"""

import typing as tp

import numpy as np

_SLICE = 64  # input channels of a kernel that are transformed at a time


class SpectralConvolution:
    """Cross-correlation of signals of one length with a fixed kernel, zeros outside the signal.

    Computes `y[p] = sum_d kernel[d + left] * x[p + d]`, what neural networks call a convolution. With
    transforms of M samples, `Y[f] = X[f] * sum_d kernel[d + left] * exp(+2j*pi*f*d/M)` (correlation
    theorem; Oppenheim & Schafer, Discrete-Time Signal Processing, section 8.6).
    """

    def __init__(self, kernel: np.ndarray, length: int, left: int) -> None:
        """Transform a kernel float32 [K, C_in, C_out] for signals of `length` samples.

        `left` is the number of zeros that "same" padding puts in front of the signal.
        """
        taps, _, self._channels = kernel.shape
        first = -min(length - 1, left)
        last = min(length - 1, taps - 1 - left)
        lags = np.arange(first, last + 1)
        # A lag may wrap around as long as it lands outside [0, length): one side of padding is enough.
        period = length + max(-first, last)
        period += period % 2
        self._forward, self._inverse = _make_transforms(length, period)
        self._kernel = _transform_kernel(kernel[first + left : last + left + 1], lags, period)

    def __call__(self, signals: np.ndarray) -> np.ndarray:
        """Return the convolution float32 [L, N, C_out] of signals [L, N, C_in]."""
        length, count, channels = signals.shape
        frequencies, _, doubled = self._kernel.shape
        spectrum = self._forward @ signals.reshape(length, count * channels)
        # Real and imaginary parts share one copy of the kernel as separate rows of one product.
        parts = np.matmul(spectrum.reshape(frequencies, 2 * count, channels), self._kernel)
        parts = parts.reshape(frequencies, 2, count, doubled)
        size = self._channels
        product = np.empty((frequencies, 2, count, size), np.float32)
        np.subtract(parts[:, 0, :, :size], parts[:, 1, :, size:], out=product[:, 0])
        np.add(parts[:, 0, :, size:], parts[:, 1, :, :size], out=product[:, 1])
        result: np.ndarray = self._inverse @ product.reshape(2 * frequencies, count * size)
        return result.reshape(length, count, size)


def _make_transforms(length: int, period: int) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return the real Fourier transform `[2F, L]` and its inverse `[L, 2F]`, rows re0, im0, re1, ..."""
    frequencies = np.arange(period // 2 + 1)
    angles = 2 * np.pi / period * np.outer(frequencies, np.arange(length))
    forward = np.stack([np.cos(angles), -np.sin(angles)], axis=1).reshape(-1, length)
    # Every frequency but the first and the last also stands for its complex conjugate.
    weights = np.where((frequencies == 0) | (frequencies == period // 2), 1.0, 2.0) / period
    inverse = forward * np.repeat(weights, 2)[:, None]
    return forward.astype(np.float32), np.ascontiguousarray(inverse.T, np.float32)


def _transform_kernel(kernel: np.ndarray, lags: np.ndarray, period: int) -> np.ndarray:
    """Return the spectrum of `kernel [K, C_in, C_out]` as `[F, C_in, 2 C_out]`, real parts first."""
    frequencies = period // 2 + 1
    taps, inputs, outputs = kernel.shape
    angles = 2 * np.pi / period * np.outer(np.arange(frequencies), lags)
    spectrum = np.empty((frequencies, inputs, 2 * outputs), np.float32)
    # In slices, because the whole kernel in float64 would be the largest thing in memory.
    for start in range(0, inputs, _SLICE):
        rows = slice(start, min(start + _SLICE, inputs))
        flat = kernel[:, rows].astype(np.float64).reshape(taps, -1)
        for part, wave in enumerate((np.cos(angles), np.sin(angles))):
            values = (wave @ flat).reshape(frequencies, -1, outputs)
            spectrum[:, rows, part * outputs : (part + 1) * outputs] = values
    return spectrum
