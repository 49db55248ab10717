"""Pre-emphasis, the power of a frame, and the width of its spectral peak at the fundamental."""

import math

import numpy as np
import torch

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


def measure_power(frames: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """Return the root mean square in dB, float32 `[B]`, of `[B, L]` under `weights` `[B or 1, L]`.

    The weights are zero outside the audio, and divide the sum: a frame at the edge loses no power.
    """
    mean = (frames.square() * weights).sum(-1) / weights.sum(-1).clamp_min(1e-6)
    level: np.ndarray = (10 * torch.log10(mean.clamp_min(QUIETEST))).cpu().numpy()
    return level


def make_basis(length: int, sample_rate: int, device: str) -> torch.Tensor:
    """Return cosines beside sines `[length, 2 M]` at 0, `STEP`, ... `HIGHEST` Hz.

    A fine grid over a tenth of the band costs less as a product than as a zero-padded FFT.
    """
    lines = torch.arange(int(HIGHEST / STEP) + 1, dtype=torch.float64) * STEP
    phase = torch.arange(length, dtype=torch.float64)[:, None] * lines * (2 * math.pi / sample_rate)
    return torch.cat([phase.cos(), phase.sin()], dim=1).float().to(device)


def measure_width(frames: torch.Tensor, f0: torch.Tensor, basis: torch.Tensor) -> np.ndarray:
    """Return the -3 dB width in Hz, float32 `[B]`, of the highest peak within 10 % of `f0` `[B]`.

    Args:
        frames: windowed and without a mean, `[B, L]`.
        f0: in Hz, below the grid's end.
        basis: from `make_basis`.

    A flank that never falls by 3 dB counts as far as 0 Hz or the end of the grid.
    """
    real, imaginary = (frames @ basis).chunk(2, dim=-1)
    level = 10 * torch.log10((real.square() + imaginary.square()).clamp_min(1e-20))
    lines = torch.arange(level.shape[-1], device=level.device) * STEP
    target = f0.to(level.device)[:, None]
    near = (lines - target).abs() <= (SEARCH * target).clamp_min(STEP)
    peak, position = torch.where(near, level, -math.inf).max(dim=-1)
    half = peak[:, None] + 10 * math.log10(0.5)
    right = _crossing(level, half, position)
    left = _crossing(level.flip(-1), half, level.shape[-1] - 1 - position)
    width: np.ndarray = ((left + right) * STEP).cpu().numpy()
    return width


def _crossing(level: torch.Tensor, half: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return how many lines right of `position` `[B]` the `level` `[B, M]` sinks to `half` `[B, 1]`."""
    last = level.shape[-1] - 1
    index = torch.arange(last + 1, device=level.device)
    below = (level <= half) & (index > position[:, None])
    there = torch.where(below, index, last).amin(-1, keepdim=True)
    after, before = level.gather(-1, there), level.gather(-1, (there - 1).clamp_min(0))
    part = ((before - half) / (before - after).clamp_min(1e-6)).clamp(0, 1)
    return (there - 1 + part)[:, 0] - position
