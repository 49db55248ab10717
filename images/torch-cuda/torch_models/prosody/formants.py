"""The first two resonances of the vocal tract, by linear prediction.

J. Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975 (autocorrelation method);
the roots' frequencies and bandwidths as in J. Markel and A. Gray, "Linear Prediction of Speech", 1976.
"""

import math
import typing as tp

import numpy as np
import torch

SAMPLE_RATE = 10000  # Hz: half of it holds the five formants that ten coefficients describe
ORDER = 10
MAX_BANDWIDTH = 600.0  # Hz; wider poles shape the spectrum's tilt and are no formants
LOWEST, HIGHEST = 90.0, SAMPLE_RATE / 2 - 50.0  # Hz; poles beside 0 and Nyquist are no formants

# Pre-emphasis of 6 dB per octave from 50 Hz on makes up for what glottis and lips leave of the voice's tilt.
EMPHASIS = math.exp(-2 * math.pi * 50 / SAMPLE_RATE)

_NOISE = 1e-9  # of the energy: white noise 90 dB down keeps the recursion regular for pure tones


def make_window(length: int, device: str) -> torch.Tensor:
    """Return a Gaussian `[length]`, exp(-12 x^2) for -1 < x < 1, lowered so that it ends at 0."""
    x = (2 * torch.arange(length, dtype=torch.float64, device=device) + 1) / length - 1
    edge = math.exp(-12.0)
    return (torch.exp(-12 * x * x) - edge) / (1 - edge)


def estimate(frames: torch.Tensor) -> np.ndarray:
    """Return F1 and F2 in Hz, float32 `[B, 2]`, of windowed frames `[B, L]` at `SAMPLE_RATE`.

    Where fewer than two poles are narrow, wide ones step in; where there is no pole at all, 0.
    """
    size = 1 << (frames.shape[-1] + ORDER).bit_length()
    spectrum = torch.fft.rfft(frames.double(), size).abs().square()
    lags = torch.fft.irfft(spectrum, size)[:, : ORDER + 1]
    frequency, bandwidth = _poles(predict(lags).cpu())
    return _choose(frequency, bandwidth)


def predict(lags: torch.Tensor) -> torch.Tensor:
    """Solve the normal equations by Levinson's recursion (Makhoul, equation 38).

    Args:
        lags: autocorrelation `[B, P + 1]`, float64.

    Returns:
        Coefficients a `[B, P]` of the predictor `x[n] = a1 x[n-1] + ... + aP x[n-P]`.
    """
    lags = lags.clone()
    lags[:, 0] = lags[:, 0] * (1 + _NOISE) + 1e-30
    order = lags.shape[1] - 1
    a = lags.new_zeros(len(lags), order)
    error = lags[:, 0]
    for i in range(order):
        past = lags[:, 1 : i + 1].flip(1)
        k = (lags[:, i + 1] - (a[:, :i] * past).sum(1)) / error
        a[:, :i] = a[:, :i] - k[:, None] * a[:, :i].flip(1)
        a[:, i] = k
        error = error * (1 - k * k).clamp_min(1e-12)
    return a


def _poles(a: torch.Tensor) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return frequency and bandwidth in Hz, both `[B, P]`, of 1 / (1 - sum a_i z^-i).

    The poles z are the eigenvalues of the companion matrix; F = arg(z) fs / 2 pi, B = -ln|z| fs / pi.
    """
    order = a.shape[1]
    matrix = a.new_zeros(len(a), order, order)
    matrix[:, 0] = a
    matrix[:, range(1, order), range(order - 1)] = 1
    z = torch.linalg.eigvals(matrix).numpy()
    frequency = np.angle(z) * (SAMPLE_RATE / (2 * math.pi))
    return frequency, -np.log(np.maximum(np.abs(z), 1e-9)) * (SAMPLE_RATE / math.pi)


def _choose(frequency: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    inside = (frequency > LOWEST) & (frequency < HIGHEST)
    narrow = bandwidth < MAX_BANDWIDTH
    # Wide poles queue behind all narrow ones, and are lowered again once two have been taken.
    queue = np.where(inside, frequency + np.where(narrow, 0.0, SAMPLE_RATE), np.inf)
    first = np.sort(queue, axis=1)[:, :2]
    first = np.where(np.isfinite(first), first % SAMPLE_RATE, HIGHEST)
    first = np.sort(first, axis=1)
    return np.where(first < HIGHEST, first, 0.0).astype(np.float32)
