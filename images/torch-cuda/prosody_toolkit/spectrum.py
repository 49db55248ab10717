"""Pre-emphasis, the power of a frame, and the width of its spectral peak at the fundamental."""

import functools
import math

import numpy as np

STEP = 4.0  # Hz between two lines; a straight line in dB between them errs by less than half a Hz
HIGHEST = 640.0  # Hz: the ceiling of the pitch and the widest peak above it
SEARCH = 0.1  # of f0: how far from it the peak may stand
QUIETEST = 1e-12  # mean square, -120 dB: what silence is given


def emphasize(wave: np.ndarray, ratio: float) -> np.ndarray:
    """Return `y[n] = x[n] - ratio * x[n - 1]` for float32 `[N]`; the first sample repeats."""
    result: np.ndarray = wave * np.float32(1 - ratio)
    np.multiply(wave[:-1], np.float32(-ratio), out=result[1:])
    result[1:] += wave[1:]
    return result


def measure_power(frames: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the root mean square in dB, float32 `[B]`, of `[B, L]` under `weights` `[B or 1, L]`.

    The weights are zero outside the audio, and divide the sum: a frame at the edge loses no power.
    """
    mean = (frames * frames * weights).sum(-1) / np.maximum(weights.sum(-1), np.float32(1e-6))
    level: np.ndarray = 10 * np.log10(np.maximum(mean, np.float32(QUIETEST)))
    return level


@functools.lru_cache(maxsize=4)
def make_basis(length: int, sample_rate: int) -> np.ndarray:
    """Return cosines beside sines, float32 `[length, 2 M]`, at 0, `STEP`, ... `HIGHEST` Hz.

    A fine grid over a tenth of the band costs less as a product than as a zero-padded FFT.
    """
    lines = np.arange(int(HIGHEST / STEP) + 1) * STEP
    phase = np.arange(length)[:, None] * lines * (2 * math.pi / sample_rate)
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32)


def measure_width(frames: np.ndarray, f0: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the -3 dB width in Hz, float32 `[B]`, of the highest peak within 10 % of `f0` `[B]`, in Hz.

    The frames `[B, L]` are windowed and without a mean, `basis` is from `make_basis`. A flank that never falls by
    3 dB counts as far as 0 Hz or the end of the grid, above which no `f0` may lie.
    """
    real, imaginary = np.split(frames @ basis, 2, axis=-1)
    level = 10 * np.log10(np.maximum(real * real + imaginary * imaginary, np.float32(1e-20)))
    lines = np.arange(level.shape[-1], dtype=np.float32) * np.float32(STEP)
    target = f0[:, None]
    near = np.abs(lines - target) <= np.maximum(np.float32(SEARCH) * target, np.float32(STEP))
    position = np.where(near, level, -np.inf).argmax(-1)
    half = np.take_along_axis(level, position[:, None], -1) + np.float32(10 * math.log10(0.5))
    right = _crossing(level, half, position)
    left = _crossing(level[:, ::-1], half, level.shape[-1] - 1 - position)
    width: np.ndarray = ((left + right) * STEP).astype(np.float32)
    return width


def _crossing(level: np.ndarray, half: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return how many lines right of `position` `[B]` the `level` `[B, M]` sinks to `half` `[B, 1]`."""
    last = level.shape[-1] - 1
    below = (level <= half) & (np.arange(last + 1) > position[:, None])
    there = np.where(below.any(-1), below.argmax(-1), last)[:, None]
    after = np.take_along_axis(level, there, -1)
    before = np.take_along_axis(level, np.maximum(there - 1, 0), -1)
    part = ((before - half) / np.maximum(before - after, np.float32(1e-6))).clip(0, 1)
    crossing: np.ndarray = (there - 1 + part)[:, 0] - position
    return crossing
