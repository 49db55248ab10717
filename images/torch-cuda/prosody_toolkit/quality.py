"""How well tokens describe the vectors they stand for.

Silhouettes by P. Rousseeuw, Journal of Computational and Applied Mathematics 20, 1987.
"""

import dataclasses

import numpy as np
import torch

from prosody_toolkit import kmeans
from prosody_toolkit.points import Points

_SAMPLE = 5000  # vectors whose silhouettes are taken; their number enters squared
_ROWS = 500  # of the distances between them at once


@dataclasses.dataclass(frozen=True)
class Quality:
    """Figures of a token model over a collection of vectors.

    `inertia` is the sum of squared distances to the nearest centre, `explained` the share of the variance that
    the tokens carry (1 - inertia / total). `silhouette` is the mean over a sample, from -1 to 1. `perplexity`
    is 2 to the entropy of the tokens in bits: how many equally frequent tokens would be as rich.
    """

    vectors: int
    inertia: float
    explained: float
    silhouette: float
    silhouette_sample: int
    used: int  # tokens that occur at all
    usage: float  # share of the tokens that occur
    perplexity: float


def measure(points: Points, centres: torch.Tensor, seed: int = 0) -> Quality:
    """Return the quality of `centres` `[K, R]` for all points; the sample is drawn by `seed`."""
    _, counts, inertia = kmeans.sweep(points, centres)
    total = points.variance() * points.space.dim * len(points)
    drawn = points.sample(_SAMPLE, np.random.default_rng(seed))
    used = int((counts > 0).sum())
    return Quality(
        vectors=len(points),
        inertia=inertia,
        explained=1 - inertia / total if total > 0 else 0.0,
        silhouette=silhouette(drawn, kmeans.assign(drawn, centres)[0]),
        silhouette_sample=len(drawn),
        used=used,
        usage=used / len(centres),
        perplexity=perplexity(counts.cpu().numpy()),
    )


def perplexity(counts: np.ndarray) -> float:
    """Return 2^H of the distribution that `counts` `[K]` describe."""
    share = counts[counts > 0] / max(1, counts.sum())
    return float(2 ** -(share * np.log2(share)).sum())


def silhouette(points: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean of (b - a) / max(a, b) over points `[N, R]` with labels `[N]`.

    `a` is the mean distance to the others of the same label, `b` that to the nearest other label. A point
    that is alone counts as 0; with a single label the mean is 0.
    """
    names, index, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        return 0.0
    member = torch.nn.functional.one_hot(index).double()
    scores = []
    for start in range(0, len(points), _ROWS):
        own = index[start : start + _ROWS, None]
        sums = torch.cdist(points[start : start + _ROWS].double(), points.double()) @ member
        mine = sums.gather(1, own)[:, 0]
        others = counts[own[:, 0]] - 1
        a = mine / others.clamp_min(1)
        b = (sums / counts).scatter(1, own, float("inf")).amin(1)
        score = (b - a) / torch.maximum(a, b).clamp_min(1e-30)
        scores.append(torch.where(others > 0, score, torch.zeros_like(score)))
    return float(torch.cat(scores).mean())
