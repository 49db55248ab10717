"""Summaries over time. `none` keeps the frames; the others join their parts along the features."""

import typing as tp

import numpy as np


def parse(text: str) -> tp.List[str]:
    """Return the parts of `mean+std`; an empty list for `none`.

    Raises:
        ValueError: a part is no known method.
    """
    if text == "none":
        return []
    parts = text.split("+")
    if len(set(parts)) < len(parts):
        raise ValueError("{!r} names a method twice".format(text))
    for part in parts:
        if part not in METHODS:
            known = ", ".join(METHODS)
            raise ValueError("{!r} is not a pooling; known: none, {}, or several as mean+std".format(part, known))
    return parts


def pool(values: np.ndarray, axis: int, text: str) -> np.ndarray:
    """Return `values` summarised along `axis`.

    Args:
        values: any array; statistics are taken in float64, so that they do not depend on the order.
        axis: the axis called "time".
        text: such as `mean` or `mean+std` (std of the population); `none` returns `values` itself.

    Returns:
        float32; with several parts they are joined along the last axis.
    """
    parts = parse(text)
    if not parts:
        return values
    pooled = [np.asarray(METHODS[part](values, axis), np.float32) for part in parts]
    return np.concatenate([np.atleast_1d(part) for part in pooled], axis=-1)


def _wide(reduce: tp.Any) -> tp.Callable[[np.ndarray, int], np.ndarray]:
    return lambda values, axis: reduce(values, axis=axis, dtype=np.float64)


METHODS: tp.Dict[str, tp.Callable[[np.ndarray, int], np.ndarray]] = {
    "mean": _wide(np.mean),
    "std": _wide(np.std),
    "min": np.min,
    "max": np.max,
    "median": np.median,
    "first": lambda values, axis: np.take(values, 0, axis=axis),
    "last": lambda values, axis: np.take(values, -1, axis=axis),
}
