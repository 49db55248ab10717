"""Smoothing of feature contours inside runs of equal voicing.

A median removes outliers, then a least-squares parabola follows what is left (A. Savitzky and
M. Golay, "Smoothing and differentiation of data by simplified least squares procedures", 1964).
Neither ever looks across a boundary between voiced and unvoiced frames.
"""

import functools
import itertools
import typing as tp

import numpy as np

# Span of the median and of the parabola in ms; in frames, the nearest odd number (1: no effect).
SPANS: tp.Dict[str, tp.Tuple[float, float]] = {
    "none": (0.0, 0.0),
    "light": (48.0, 80.0),
    "medium": (80.0, 144.0),
    "heavy": (112.0, 240.0),
}

_BLOCK = 4096  # frames


def smooth(features: np.ndarray, voiced: np.ndarray, level: str, hop_ms: float) -> np.ndarray:
    """Return smoothed `features` `[T, D]`, run by run of `voiced` `[T]`.

    A value never leaves the range of its run, so what was positive or zero everywhere stays so.
    """
    median, parabola = (_odd(span / hop_ms) for span in SPANS[level])
    result: np.ndarray = features.copy()
    for start, stop in find_runs(voiced):
        run = features[start:stop]
        fitted = _fit(_median(run, median), parabola)
        result[start:stop] = np.clip(fitted, run.min(0), run.max(0))
    return result


def find_runs(voiced: np.ndarray) -> tp.List[tp.Tuple[int, int]]:
    """Return start and stop of every run of equal values in `[T]`, the last one included."""
    edges = np.flatnonzero(np.diff(voiced)) + 1
    return list(itertools.pairwise([0, *edges.tolist(), len(voiced)]))


def _odd(frames: float) -> int:
    return max(1, 2 * round((frames - 1) / 2) + 1)


def _median(run: np.ndarray, span: int) -> np.ndarray:
    """Return the running median of `[T, D]`; the ends are repeated outwards."""
    if span == 1 or len(run) < 3:
        return run
    half = span // 2
    padded = np.pad(run, ((half, half), (0, 0)), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, span, axis=0)
    # In blocks, as a median copies its views: a run may last an hour.
    parts = [np.median(views[start : start + _BLOCK], axis=-1) for start in range(0, len(run), _BLOCK)]
    return np.concatenate(parts).astype(run.dtype)


def _fit(run: np.ndarray, span: int) -> np.ndarray:
    """Return `[T, D]` with every value replaced by that of the parabola through its surroundings.

    Where half a span is missing, the value is read off the first or the last whole parabola.
    """
    span = min(span, len(run) if len(run) % 2 else len(run) - 1)
    if span < 5:
        return run
    half = span // 2
    matrix = _projection(span)
    middle = np.stack([np.convolve(column, matrix[half], "valid") for column in run.T], axis=1)
    ends = matrix[:half] @ run[:span], matrix[half + 1 :] @ run[-span:]
    return np.concatenate([ends[0], middle, ends[1]]).astype(run.dtype)


@functools.cache
def _projection(span: int) -> np.ndarray:
    """Return the matrix `[span, span]` that projects values onto parabolas."""
    x = np.arange(span) - span // 2
    basis = np.stack([x**0, x, x**2], axis=1).astype(np.float64)
    return tp.cast(np.ndarray, basis @ np.linalg.pinv(basis))
