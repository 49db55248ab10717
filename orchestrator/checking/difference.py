"""How far apart the values of two arrays are, and whether rounding explains it.

Another processor, a GPU, another batch or another worker rounds differently. Floats may differ by a tolerance
plus that tolerance times their size; of integers, which are codes and decisions, one in a thousand may differ, as
near ties may fall either way.
"""

import dataclasses

import numpy as np

TOLERANCE = 1e-5  # absolute, and relative
SHARE = 1e-3  # of integers that may differ


@dataclasses.dataclass(frozen=True)
class Difference:
    """What came of laying two arrays over each other."""

    largest: float | None  # None where there is no such number: shapes differ, or values are not finite
    within: bool
    text: str


def between(a: np.ndarray, b: np.ndarray, tolerance: float = TOLERANCE) -> Difference:
    """Return how far apart two arrays are.

    Args:
        a: of any shape; float16 may differ by one unit in the last place besides, which is what another rounding
            of float32 makes.
        b: the other.
        tolerance: of floats.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(None, False, f"{a.dtype} {list(a.shape)}, then {b.dtype} {list(b.shape)}")
    relative = max(tolerance, float(np.finfo(a.dtype).eps) if a.dtype == np.float16 else 0.0)
    kind, same = a.dtype.kind, np.atleast_1d(a == b)
    first, second = (np.atleast_1d(values).astype(np.float64) for values in (a, b))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = np.abs(first - second)
    distance[same] = 0
    distance[np.isnan(distance)] = np.inf
    largest = float(distance.max())
    finite = largest if np.isfinite(largest) else None
    if kind != "f":
        share = float((~same).mean())
        return Difference(finite, share <= SHARE, f"{share:.3%} of the values differ, by up to {largest:g}")
    allowed = tolerance + relative * np.maximum(np.abs(first), np.abs(second))
    share = float((~(distance <= allowed) | np.isinf(distance)).mean())
    beyond = f", {share:.3%} of them beyond the tolerance" if share else ", within the tolerance"
    return Difference(finite, not share, f"values differ by up to {largest:.3g}{beyond}")
