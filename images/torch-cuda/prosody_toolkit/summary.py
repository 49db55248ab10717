"""A fixed number of values that describe an utterance without any training: statistics of its prosody."""

import typing as tp

import numpy as np

POWER = 4  # index of the feature that is there in unvoiced frames as well
STATISTICS = ("mean", "std", "delta_mean", "delta_std")


def names(features: tp.Sequence[str], n_clusters: int = 0) -> tp.List[str]:
    """Return what the values of `summarize` are, in their order."""
    statistics = [f"{feature}.{statistic}" for statistic in STATISTICS for feature in features]
    return [*statistics, "voiced_ratio", *(f"token_{token}" for token in range(n_clusters))]


def summarize(
    features: np.ndarray, voiced: np.ndarray, tokens: tp.Optional[np.ndarray] = None, n_clusters: int = 0
) -> np.ndarray:
    """Return statistics of features `[T, D]` and tokens `[T]`, float32 `[4 D + 1 + K]`.

    Mean and standard deviation of each feature, the same of its deltas, the share of voiced frames, and the
    share of each of the K tokens, if there are any. Power is counted in all frames, the others where `voiced` `[T]`
    is not 0, as they are not there elsewhere. A delta is the change from a frame to the next, both of which count.
    What has no frames is 0.
    """
    voiced = np.asarray(voiced) > 0
    wide = features.astype(np.float64)
    columns = [
        _describe(wide[:, index], np.ones_like(voiced) if index == POWER else voiced) for index in range(wide.shape[1])
    ]
    ratio = voiced.mean() if len(voiced) else 0.0
    parts = [np.array(columns).T.ravel(), np.array([ratio])]
    if tokens is not None:
        parts.append(np.bincount(tokens, minlength=n_clusters) / max(1, len(tokens)))
    return np.concatenate(parts).astype(np.float32)


def _describe(values: np.ndarray, counted: np.ndarray) -> tp.List[float]:
    """Return the `STATISTICS` of one feature `[T]` over the frames that count."""
    kept = values[counted]
    deltas = np.diff(values)[counted[1:] & counted[:-1]]
    return [float(figure) for part in (kept, deltas) for figure in ((part.mean(), part.std()) if len(part) else (0, 0))]
