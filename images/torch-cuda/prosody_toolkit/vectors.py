"""Feature vectors: a collection that grows as files come in, and its blocks as k-means sees them."""

import dataclasses
import typing as tp

import numpy as np
import torch

CHUNK = {"cpu": 4096, "cuda": 1 << 18}  # vectors at once: their distances fit the cache of a core, or fill a GPU

Vectors = tp.Union[np.ndarray, torch.Tensor]
Blocks = tp.Sequence[np.ndarray]  # float32 [n, D] each


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
            if self._filled == self._capacity:
                self._blocks.append(np.empty((self._capacity, self.features_dim), np.float32))
                self._filled = 0
            count = min(len(rows), self._capacity - self._filled)
            self._blocks[-1][self._filled : self._filled + count] = rows[:count]
            self._filled += count
            rows = rows[count:]

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


@dataclasses.dataclass(frozen=True)
class Space:
    """Where distances are taken: `(x * weights - mean) @ components.T`.

    Without `components` (`[R, D]`, orthonormal) it is `x * weights` alone.
    """

    weights: torch.Tensor  # [D]
    mean: tp.Optional[torch.Tensor] = None  # [D]
    components: tp.Optional[torch.Tensor] = None

    @property
    def dim(self) -> int:
        """R, the numbers of a vector in this space."""
        return len(self.weights) if self.components is None else len(self.components)

    def to(self, device: str) -> "Space":
        """Return the same space on a device."""
        parts = [part if part is None else part.to(device) for part in (self.weights, self.mean, self.components)]
        return Space(*parts)  # type: ignore[arg-type]

    def project(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return `[N, R]` of vectors `[N, D]`."""
        scaled = vectors * self.weights
        if self.mean is None or self.components is None:
            return scaled
        return (scaled - self.mean) @ self.components.T


class Points:
    """Blocks of vectors in a space, weighted and perhaps reduced; on a device chunk by chunk, never all at once."""

    def __init__(self, blocks: Blocks, space: Space, device: str) -> None:
        self._blocks = [block for block in blocks if len(block)]
        self.space = space.to(device)
        self.device = device
        self._chunk = CHUNK[device.split(":")[0]]
        self._starts = np.cumsum([0, *map(len, self._blocks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def chunks(self) -> tp.Iterator[torch.Tensor]:
        """Yield `[C, R]` in the order of the vectors."""
        for block in self._blocks:
            for start in range(0, len(block), self._chunk):
                yield self._project(block[start : start + self._chunk])

    def sample(self, count: int, random: np.random.Generator) -> torch.Tensor:
        """Return `count` points drawn without repetition, in their order; all where there are no more."""
        if len(self) <= count:
            return torch.cat(list(self.chunks()))
        index = np.sort(random.choice(len(self), count, replace=False))
        owner = np.searchsorted(self._starts, index, side="right") - 1
        parts = [self._blocks[b][index[owner == b] - self._starts[b]] for b in np.unique(owner)]
        return self._project(np.concatenate(parts))

    def variance(self) -> float:
        """Return the variance of the points, averaged over their R numbers."""
        total = torch.zeros(2, self.space.dim, dtype=torch.float64, device=self.device)
        for chunk in self.chunks():
            wide = chunk.double()
            total += torch.stack([wide.sum(0), wide.square().sum(0)])
        mean, square = (total / max(1, len(self))).cpu()
        return float((square - mean.square()).clamp_min(0).mean())

    def _project(self, rows: np.ndarray) -> torch.Tensor:
        return self.space.project(torch.from_numpy(np.ascontiguousarray(rows)).to(self.device))


def fit_pca(blocks: Blocks, weights: torch.Tensor, count: int) -> tp.Tuple[Space, float]:
    """Return the space of the `count` first principal components, and the share of variance that they hold.

    K. Pearson, "On lines and planes of closest fit to systems of points in space", 1901; by the eigenvectors
    of the covariance, which is summed up block by block. The largest entry of each component is positive,
    so that equal data gives equal components.

    Raises:
        ValueError: `count` exceeds the dimension of the vectors.
    """
    dim = len(weights)
    if not 1 <= count <= dim:
        raise ValueError(
            f"reduced_dims={count}: a PCA of vectors of {dim} numbers has 1 to {dim} components; "
            "it reduces and cannot add any, so leave reduced_dims at None or lower it"
        )
    total, products, rows = np.zeros(dim), np.zeros((dim, dim)), 0
    for block in blocks:
        scaled = block.astype(np.float64) * weights.double().numpy()
        total, products, rows = total + scaled.sum(0), products + scaled.T @ scaled, rows + len(scaled)
    mean = total / rows
    variances, vectors = np.linalg.eigh(products / rows - np.outer(mean, mean))
    components = vectors[:, ::-1].T[:count].copy()
    components *= np.sign(components[np.arange(count), np.abs(components).argmax(1)])[:, None]
    held = variances[::-1][:count].sum() / max(variances.sum(), 1e-30)
    space = Space(weights, *(torch.from_numpy(part.astype(np.float32)) for part in (mean, components)))
    return space, float(held)
