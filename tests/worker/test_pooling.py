import numpy as np
import pytest

from worker.work import pooling

METHODS = {
    "mean": lambda v, axis: v.mean(axis, dtype=np.float64),
    "std": lambda v, axis: v.std(axis, dtype=np.float64),
    "min": lambda v, axis: v.min(axis),
    "max": lambda v, axis: v.max(axis),
    "median": lambda v, axis: np.sort(v, axis).take(v.shape[axis] // 2, axis),  # of an odd number
    "first": lambda v, axis: v.take(0, axis),
    "last": lambda v, axis: v.take(-1, axis),
}


def frames(*shape):
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


def test_every_method_is_tested_here():
    assert set(METHODS) == set(pooling.METHODS)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("axis", [0, 1])
def test_method_against_numpy(method, axis):
    values = frames(7, 7, 3)
    found = pooling.pool(values, axis, method)
    assert found.dtype == np.float32
    assert found.shape == (7, 3)
    np.testing.assert_array_equal(found, METHODS[method](values, axis).astype(np.float32))


def test_parts_are_joined_along_the_features_in_the_order_asked_for():
    values = frames(5, 3)
    found = pooling.pool(values, 0, "max+mean+first")
    assert found.shape == (9,)
    np.testing.assert_array_equal(found[:3], values.max(0))
    np.testing.assert_allclose(found[3:6], values.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(found[6:], values[0])
    assert pooling.pool(frames(4, 5, 3), 1, "mean+std").shape == (4, 6)


def test_std_is_that_of_the_population():
    assert pooling.pool(np.array([[1.0], [3.0]], np.float32), 0, "std")[0] == 1.0


def test_statistics_are_taken_in_float64():
    values = np.full((1 << 18, 1), 1e4 + 0.1, np.float32)
    assert pooling.pool(values, 0, "mean")[0] == values[0, 0]


@pytest.mark.parametrize("text,size", [("mean", 1), ("mean+std", 2)])
def test_one_dimension_gives_a_vector(text, size):
    found = pooling.pool(np.arange(5, dtype=np.float32), 0, text)
    assert found.shape == (size,)
    assert found[0] == 2.0


def test_whole_numbers_are_pooled_as_floats():
    found = pooling.pool(np.array([[1], [2]], np.int16), 0, "mean")
    assert found.dtype == np.float32
    assert found[0] == 1.5


def test_none_gives_the_frames_themselves():
    values = frames(4, 2)
    assert pooling.pool(values, 0, "none") is values
    assert pooling.parse("none") == []


@pytest.mark.parametrize("text", ["average", "", "mean+", "mean+none", "mean + std", "Mean"])
def test_unknown_method_is_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="is not a pooling; known: none, mean, std, "):
        pooling.parse(text)
    with pytest.raises(ValueError):
        pooling.pool(frames(2, 2), 0, text)


def test_a_method_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="names a method twice"):
        pooling.parse("mean+std+mean")
