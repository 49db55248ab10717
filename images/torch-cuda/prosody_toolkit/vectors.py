"""A collection of feature vectors that grows as files come in, and is read block by block."""

import typing as tp

import numpy as np
import torch

Vectors = tp.Union[np.ndarray, torch.Tensor]


class ArrayClass:
    """Vectors of many files in blocks of equal size, `[N, D]` altogether.

    A block that is full stays where it is, and the next one is allocated beside it: nothing is ever
    copied to grow, so memory is that of the vectors and less than one block more.
    """

    def __init__(self, features_dim: int = 6, init_capacity: int = 10000) -> None:
        """Allocate the first block of `init_capacity` vectors of `features_dim` numbers."""
        if features_dim < 1 or init_capacity < 1:
            raise ValueError("features_dim and init_capacity must be at least 1")
        self.features_dim = features_dim
        self._capacity = init_capacity
        self._blocks = [np.empty((init_capacity, features_dim), np.float32)]
        self._filled = 0  # of the last block
        self._final = False

    def __len__(self) -> int:
        return sum(map(len, self.blocks()))

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, the free room of the last one included."""
        return sum(block.nbytes for block in self._blocks)

    def add_batch(self, batch: Vectors) -> None:
        """Append a copy, as float32, of finite vectors `[N, D]`, or of one vector `[D]`.

        Raises:
            ValueError: of another shape, or not finite; nothing of it was taken.
            RuntimeError: `finalize` was called.
        """
        if self._final:
            raise RuntimeError("the collection is final; make a new ArrayClass to collect more")
        rows = np.asarray(batch.detach().cpu() if isinstance(batch, torch.Tensor) else batch)
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[1] != self.features_dim:
            raise ValueError(f"expected vectors [N, {self.features_dim}], got {list(rows.shape)}")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused
            rows = rows.astype(np.float32, copy=False)
        if not np.isfinite(rows).all():
            raise ValueError("the vectors hold NaN or infinity; leave such frames out")
        while len(rows):
            rows = rows[self._take(rows) :]

    def finalize(self) -> "ArrayClass":
        """Give back the free room of the last block, and take no more; calling it again changes nothing."""
        if not self._final:
            self._blocks[-1] = self._blocks[-1][: self._filled].copy()
            self._final = True
        return self

    def blocks(self) -> tp.Iterator[np.ndarray]:
        """Yield float32 `[n, D]` in the order in which they came, without a copy."""
        yield from self._blocks[:-1]
        if self._filled:
            yield self._blocks[-1][: self._filled]

    def array(self) -> np.ndarray:
        """Return all vectors as one new array `[N, D]`, which takes their memory a second time."""
        parts = list(self.blocks())
        return np.concatenate(parts) if parts else np.empty((0, self.features_dim), np.float32)

    def _take(self, rows: np.ndarray) -> int:
        """Copy what fits into the last block, and return how many rows that were."""
        if self._filled == self._capacity:
            self._blocks.append(np.empty((self._capacity, self.features_dim), np.float32))
            self._filled = 0
        count = min(len(rows), self._capacity - self._filled)
        self._blocks[-1][self._filled : self._filled + count] = rows[:count]
        self._filled += count
        return count


def collect(vectors: tp.Union[ArrayClass, Vectors], features_dim: int) -> ArrayClass:
    """Return vectors as a collection; one that is given as such is returned itself.

    Raises:
        ValueError: they have another dimension, or there are none.
    """
    if isinstance(vectors, ArrayClass):
        found = vectors
    else:
        found = ArrayClass(features_dim, max(1, len(vectors)))
        found.add_batch(vectors)
    if found.features_dim != features_dim:
        raise ValueError(f"expected vectors of {features_dim} numbers, got {found.features_dim}")
    if not len(found):
        raise ValueError("there are no vectors to work on; add some with add_batch")
    return found
