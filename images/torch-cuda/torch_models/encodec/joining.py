"""Frames of many windows to the arrays of one item."""

import numpy as np


def join_chunks(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return `[D, sum of frames]`: of the chunks `[N, D, F]` in order the `frames` `[N]` that are not filled up."""
    return np.concatenate([chunk[:, :count] for chunk, count in zip(values, frames, strict=True)], axis=1)


def join_windows(values: np.ndarray, frames: np.ndarray, hop: int) -> np.ndarray:
    """Return `[D, T]`: every frame of the audio once, from the window in which it lies deeper.

    The windows `[N, D, F]` begin every `hop` frames; `frames` `[N]` of each are of audio and not of its padding.
    """
    overlap = values.shape[2] - hop
    begins = np.full(len(values), overlap // 2)
    ends = np.minimum(frames, overlap // 2 + hop)
    begins[0], ends[-1] = 0, frames[-1]
    return np.concatenate([one[:, a:b] for one, a, b in zip(values, begins, ends, strict=True)], axis=1)


def average(codes: np.ndarray) -> np.ndarray:
    """Return int16 `[K, F]`, the mean over windows of indices `[N, K, F]`, halves to the even neighbour.

    Indices are names and not quantities, so the mean names an unrelated entry.
    """
    mean: np.ndarray = np.rint(codes.mean(axis=0, dtype=np.float64))
    return mean.astype(np.int16)
