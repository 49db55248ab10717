"""Fundamental frequency and harmonicity by autocorrelation.

Everything follows P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17, 1993, pages 97-110.
"""

import math
import typing as tp

import numpy as np

FLOOR = 65.0  # Hz
CEILING = 450.0  # Hz
CANDIDATES = 8  # voiced ones kept per frame
PERIODS = 3.0  # periods of the floor that a window must hold for a trustworthy autocorrelation

_OVERSAMPLING = 2  # of the lag axis: a parabola through raw 16 kHz lags misses narrow peaks
_MIN_OVERLAP = 0.05  # of the window's energy: beyond it a frame at the edge of the file says nothing
_AUDIBLE = 1e-5  # amplitude, -100 dBFS: what rounding leaves of a constant is no signal
_IMPOSSIBLE = -1e9  # strength of an empty candidate

# What the path finder weighs, with the values that are customary for speech.
_VOICING_THRESHOLD = 0.45
_SILENCE_THRESHOLD = 0.03  # of the largest amplitude of the file
_OCTAVE = 0.01  # per octave of lag, in favour of high frequencies
_OCTAVE_JUMP = 0.35  # per octave between neighbouring frames 10 ms apart
_VOICING_CHANGE = 0.14  # likewise, for each start and end of voicing


class Candidates(tp.NamedTuple):
    """Local maxima of the autocorrelation, strongest first; an empty place has frequency 0."""

    frequency: np.ndarray  # float32 [T, K], Hz
    correlation: np.ndarray  # float32 [T, K], r at the maximum
    peak: np.ndarray  # float32 [T], largest amplitude within one longest period around the frame's centre


def window_length(frame_length: int, sample_rate: int) -> int:
    """Return the even length of the pitch window, in samples: the frame, or three periods if longer."""
    return max(frame_length, math.ceil(PERIODS * sample_rate / FLOOR)) // 2 * 2


def centre(frames: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return `frames` `[B, L]` without their mean, which is taken under `weights` `[B or 1, L]`."""
    total = (frames[:, None] @ weights[:, :, None])[:, 0]
    centred: np.ndarray = frames - total / np.maximum(weights.sum(-1, keepdims=True), np.float32(1e-6))
    return centred


def find_candidates(frames: np.ndarray, window: np.ndarray, sample_rate: int) -> Candidates:
    """Find where a frame resembles itself (r = r_windowed / r_window, Boersma's equation 9).

    Args:
        frames: float32 `[B, L]`, zero outside the audio.
        window: `[1, L]`; or `[B, L]`, zero outside the audio, where frames reach over
            its edges: dividing by the window that was really used keeps their correlation unbiased.
        sample_rate: in Hz.
    """
    rate = _OVERSAMPLING * sample_rate
    first, last = int(rate / CEILING), math.ceil(rate / FLOOR)
    signal = np.where(window > 0, centre(frames, window), np.float32(0))
    own, shape = (_autocorrelation(part, last + 1) for part in (signal * window, window))
    r = own / np.maximum(own[:, :1], np.float32(1e-12))
    overlap = shape / np.maximum(shape[:, :1], np.float32(1e-12))
    r /= np.maximum(overlap, np.float32(_MIN_OVERLAP))
    r *= overlap > _MIN_OVERLAP
    lag, height = _peaks(r, first, last)
    frequency, height = _strongest(rate / lag, height)
    # Of the whole frame it would call the silence beside a voice loud, half a window far: voiced, that is.
    middle, reach = frames.shape[-1] // 2, math.ceil(0.5 * sample_rate / FLOOR)
    return Candidates(frequency, height, np.abs(signal[:, middle - reach : middle + reach]).max(-1))


def _strongest(frequency: np.ndarray, height: np.ndarray) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return the `CANDIDATES` best of `[B, M]`, and 0 for both where there are fewer maxima."""
    score = height + np.float32(_OCTAVE) * np.log2(frequency)
    best = np.argpartition(score, -CANDIDATES, axis=-1)[:, -CANDIDATES:]
    order = np.argsort(-np.take_along_axis(score, best, -1), axis=-1, kind="stable")
    best = np.take_along_axis(best, order, -1)
    height = np.take_along_axis(height, best, -1)
    chosen = np.take_along_axis(frequency, best, -1).clip(FLOOR, CEILING)
    found = height > 0
    return np.where(found, chosen, 0).astype(np.float32), np.where(found, height, 0).astype(np.float32)


def find_path(candidates: Candidates, hop_seconds: float) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Choose one candidate per frame so that the whole contour is the cheapest.

    Returns:
        frequency in Hz, 0 in unvoiced frames, and correlation; both float32 `[T]`.
    """
    strength = _strengths(candidates)
    zero = np.zeros((len(strength), 1), np.float32)
    frequency = np.concatenate([zero, candidates.frequency], axis=1)
    correlation = np.concatenate([zero, candidates.correlation], axis=1)
    chosen = _decode(strength, frequency, 0.01 / hop_seconds)
    rows = np.arange(len(chosen))
    return frequency[rows, chosen], correlation[rows, chosen]


def harmonicity(correlation: np.ndarray) -> np.ndarray:
    """Return the harmonics-to-noise ratio `10 log10(r / (1 - r))` in dB (Boersma's equation 4)."""
    r = np.clip(correlation.astype(np.float64), 1e-6, 1 - 1e-6)
    return (10 * np.log10(r / (1 - r))).astype(np.float32)


def _autocorrelation(frames: np.ndarray, last: int) -> np.ndarray:
    """Return lags 0 .. `last` `[B, last + 1]`, on an axis `_OVERSAMPLING` times finer."""
    size = _fast_length(frames.shape[-1] + last // _OVERSAMPLING + 2)
    spectrum = np.fft.rfft(frames, size)
    power = spectrum.real**2 + spectrum.imag**2
    power[:, -1] *= 0.5  # the Nyquist bin of the short transform stands for two of the long one
    lags: np.ndarray = np.fft.irfft(power, _OVERSAMPLING * size)[:, : last + 1]  # zero-padding interpolates by sinc
    return lags


def _fast_length(size: int) -> int:
    """Return the smallest even number >= `size` whose prime factors are 2, 3 and 5."""
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and size % 2 == 0:
            return size
        size += 1


def _peaks(r: np.ndarray, first: int, last: int) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return lag and height `[B, last - first + 1]` of local maxima, by parabolas; no maximum: height -1."""
    before, here, after = r[:, first - 1 : last], r[:, first : last + 1], r[:, first + 1 : last + 2]
    lag = np.broadcast_to(np.arange(first, last + 1, dtype=np.float32), here.shape).copy()
    height = np.full(here.shape, -1, np.float32)
    at = np.nonzero((here > before) & (here >= after) & (here > 0))  # a tenth of them: parabolas for those alone
    slope, bend = 0.5 * (before[at] - after[at]), before[at] - 2 * here[at] + after[at]
    shift = (slope / np.minimum(bend, np.float32(-1e-9))).clip(-0.5, 0.5)
    top = here[at] - 0.5 * slope * shift
    lag[at] += shift
    height[at] = np.where(top > 1, 1 / np.maximum(top, np.float32(1)), top)  # parabolas overshoot 1; mirrored
    return lag, height


def _strengths(candidates: Candidates) -> np.ndarray:
    """Return local strengths `[T, 1 + K]`, unvoiced first (Boersma's equations 23 and 24)."""
    loudness = candidates.peak / max(float(candidates.peak.max()), _AUDIBLE)
    quiet = 2 - loudness * ((1 + _VOICING_THRESHOLD) / _SILENCE_THRESHOLD)
    unvoiced = _VOICING_THRESHOLD + np.maximum(quiet, 0)
    valid = candidates.frequency > 0
    octaves = np.log2(FLOOR / np.where(valid, candidates.frequency, FLOOR))
    voiced = np.where(valid, candidates.correlation - _OCTAVE * octaves, _IMPOSSIBLE)
    return np.concatenate([unvoiced[:, None], voiced], axis=1)


def _decode(strength: np.ndarray, frequency: np.ndarray, scale: float) -> np.ndarray:
    """Return the best path `[T]` by the Viterbi algorithm; `scale` adapts transition costs to the hop."""
    length, states = strength.shape
    back = np.zeros((length, states), np.int8)
    score = strength[0].astype(np.float64)  # in single precision an hour of sums would lose the costs
    block = 1024
    for start in range(1, length, block):
        stop = min(start + block, length)
        moves = _transitions(frequency[start - 1 : stop]) * scale
        for t in range(start, stop):
            total = score - moves[t - start]
            back[t] = total.argmax(1)
            score = total.max(1) + strength[t]
    path = np.zeros(length, np.int64)
    path[-1] = score.argmax()
    for t in range(length - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def _transitions(frequency: np.ndarray) -> np.ndarray:
    """Return costs `[T - 1, to, from]` between neighbours in `[T, K]`, for voicing and octaves jumped."""
    voiced = frequency > 0
    octaves = np.log2(np.where(voiced, frequency, 1.0))
    jump = _OCTAVE_JUMP * np.abs(octaves[1:, :, None] - octaves[:-1, None, :])
    now, then = voiced[1:, :, None], voiced[:-1, None, :]
    return np.where(now & then, jump, np.where(now | then, _VOICING_CHANGE, 0.0))
