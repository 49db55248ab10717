"""How close numbers must be that processors round in their own ways."""

import numpy as np


def assert_close(found, expected, within=1e-5, at_most=2e-4, share=0.99):
    """Hold nearly all values to `within` (and as much of the value), and every one of them to `at_most`.

    A logarithm of almost nothing, or a division by a small deviation, makes single values of a network several
    times less exact than all others; which ones, and by how much, depends on the processor's instructions.
    """
    assert np.shape(found) == np.shape(expected)
    if not np.size(expected):
        return
    difference = np.abs(np.asarray(found, np.float64) - expected)
    allowed = 1 + np.abs(expected)
    good = float((difference <= within * allowed).mean())
    assert good >= share, f"only {good:.4%} are within {within}"
    worst = float((difference / allowed).max())
    assert worst <= at_most, f"one differs by {worst:.2e} of itself and 1"
