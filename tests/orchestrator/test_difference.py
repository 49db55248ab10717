"""How far apart the values of two arrays may be."""

import numpy as np
import pytest

from orchestrator.checking import comparison

VALUES = np.linspace(0.1, 0.9, 20, dtype=np.float32).reshape(10, 2)
CODES = np.arange(3000, dtype=np.int16).reshape(2, 1500) % 1024


@pytest.mark.parametrize(
    ("change", "within"),
    [(0.9e-5, True), (1.2e-5, False), (np.nan, False), (np.inf, False)],
)
def test_small_floats_may_differ_by_the_tolerance(change, within):
    a = np.zeros((3, 2), np.float32)
    b = a.copy()
    b[1, 1] += change
    for pair in ((a, b), (b, a)):
        found = comparison.between(*pair)
        assert found.within is within
        assert (found.largest is None) == (not np.isfinite(change))


def test_large_floats_may_differ_by_their_share():
    a = np.full(4, 1000, np.float32)
    assert comparison.between(a, a * np.float32(1 + 0.9e-5)).within
    assert not comparison.between(a, a * np.float32(1 + 1.2e-5)).within
    assert comparison.between(a, a * np.float32(1.001), 1e-2).within


def test_float16_may_differ_by_its_last_place():
    a = np.array([1.5, 300], np.float16)
    assert comparison.between(a, np.nextafter(a, np.float16(np.inf))).within
    assert not comparison.between(a, a * np.float16(1.01)).within


@pytest.mark.parametrize(("count", "within"), [(0, True), (3, True), (4, False)])
def test_one_code_in_a_thousand_may_differ_by_anything(count, within):
    other = CODES.copy()
    other.flat[:count] = 1023 - other.flat[:count]
    found = comparison.between(CODES, other, 1.0)
    assert found.within is within and found.largest == (1023 if count else 0)


def test_a_decision_more_or_less_is_not_within_any_tolerance():
    assert not comparison.between(np.array([0, 1], np.uint8), np.array([0, 0], np.uint8), 1.0).within


@pytest.mark.parametrize("other", [VALUES[:-1], VALUES.astype(np.float16), VALUES[None]])
def test_shapes_and_types_must_be_the_same(other):
    found = comparison.between(VALUES, other, 1.0)
    assert (found.within, found.largest) == (False, None)
