"""The collection of vectors: nothing lost, nothing copied to grow."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit.vectors import ArrayClass, collect  # noqa: E402


def test_what_was_added_comes_out_in_order():
    random = np.random.default_rng(0)
    batches = [random.random((count, 6)).astype(np.float32) for count in (1, 9, 10, 0, 33, 7)]
    collection = ArrayClass(6, init_capacity=10)
    for batch in batches:
        collection.add_batch(batch)
    assert len(collection) == 60
    np.testing.assert_array_equal(collection.array(), np.concatenate(batches))
    assert [len(block) for block in collection.blocks()] == [10] * 6


def test_tensors_single_vectors_and_other_types_are_taken():
    collection = ArrayClass(2)
    collection.add_batch(torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True))
    collection.add_batch([3, 4])
    collection.add_batch(np.array([[5, 6]], np.int16))
    np.testing.assert_array_equal(collection.array(), [[1, 2], [3, 4], [5, 6]])
    assert collection.array().dtype == np.float32


def test_growing_never_moves_a_block_and_wastes_less_than_one():
    collection = ArrayClass(6, init_capacity=1000)
    collection.add_batch(np.zeros((1000, 6)))
    first = next(collection.blocks())
    for _ in range(50):
        collection.add_batch(np.ones((990, 6)))
    assert np.shares_memory(first, next(collection.blocks()))
    assert collection.nbytes - len(collection) * 6 * 4 < 1000 * 6 * 4
    collection.finalize()
    assert collection.nbytes == len(collection) * 6 * 4


def test_final_is_final():
    collection = ArrayClass(6)
    collection.add_batch(np.zeros((3, 6)))
    assert collection.finalize() is collection.finalize() and len(collection) == 3
    with pytest.raises(RuntimeError, match="final"):
        collection.add_batch(np.zeros((1, 6)))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (np.zeros((3, 5)), r"expected vectors \[N, 6\], got \[3, 5\]"),
        (np.zeros((2, 3, 6)), r"got \[2, 3, 6\]"),
        (np.array([[0, 0, np.nan, 0, 0, 0]]), "NaN"),
        (np.full((1, 6), 1e300), "infinity"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_of_it_is_taken(batch, words):
    collection = ArrayClass(6, init_capacity=2)
    collection.add_batch(np.zeros((1, 6)))
    with pytest.raises(ValueError, match=words):
        collection.add_batch(batch)
    assert len(collection) == 1


def test_collect_takes_arrays_as_they_are_and_refuses_none():
    collection = ArrayClass(6)
    with pytest.raises(ValueError, match="no vectors"):
        collect(collection, 6)
    with pytest.raises(ValueError, match="no vectors"):
        collect(np.zeros((0, 6)), 6)
    collection.add_batch(np.zeros((1, 6)))
    assert collect(collection, 6) is collection
    assert len(collect(torch.zeros(5, 6), 6)) == 5
    with pytest.raises(ValueError, match="of 4 numbers, got 6"):
        collect(collection, 4)
