"""Vectors as k-means sees them: weighted, perhaps reduced, and never all of them at once."""

import dataclasses
import typing as tp

import numpy as np
import torch

CHUNK = {"cpu": 4096, "cuda": 1 << 18}  # vectors at once: their distances fit the cache of a core, or fill a GPU

Blocks = tp.Sequence[np.ndarray]  # float32 [n, D] each


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
    """Blocks of vectors in a space, on a device chunk by chunk."""

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
