"""k-means: careful seeding, Lloyd's iteration, and how good the result is.

S. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982; seeds by
D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007, in the greedy
form of its section 5; silhouettes by P. Rousseeuw, Journal of Computational and Applied Mathematics 20, 1987.

Every pass reads the points chunk by chunk, so memory does not grow with their number. On a CPU equal
points, seed and threads give equal bytes; a GPU adds up in any order.
"""

import dataclasses
import math
import typing as tp

import numpy as np
import torch

from prosody_toolkit.vectors import Points

TOLERANCE = 1e-4  # of the variance: how little the centres may move together for Lloyd's iteration to end
_SAMPLE = 100_000  # points that seeds, and new places for empty clusters, are chosen among
_SCORED = 5000  # points whose silhouettes are taken; their number enters squared
_ROWS = 500  # of the distances between them at once

OnIteration = tp.Callable[[int, float], None]  # gets the iteration and the inertia per point


@dataclasses.dataclass(frozen=True)
class KmeansFit:
    """What Lloyd's iteration ended with."""

    centres: torch.Tensor  # float32 [K, R]
    iterations: int
    converged: bool


def assign(points: torch.Tensor, centres: torch.Tensor) -> tp.Tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre, int64 `[N]`, and the squared distance to it, float32 `[N]`.

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, taken from the middle of the centres, where less is lost to rounding.
    """
    middle = centres.mean(0)
    points, centres = points - middle, centres - middle
    scores = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2)
    least, nearest = scores.min(1)
    return nearest, (least + points.square().sum(1)).clamp_min(0)


def seed(points: Points, count: int, random: np.random.Generator) -> torch.Tensor:
    """Return `count` different points `[K, R]`, each drawn far from those before it.

    Every seed is the best of 2 + ln K draws with a probability that grows with the squared distance.

    Raises:
        ValueError: there are fewer different points.
    """
    sample = points.sample(max(_SAMPLE, 20 * count), random)
    chosen = [int(random.integers(len(sample)))]
    distances = _squared(sample, sample[chosen[0]])
    draws = 2 + int(math.log(count))
    while len(chosen) < count:
        mass = distances.double().cumsum(0).cpu().numpy()
        if mass[-1] <= 0:
            raise ValueError(
                f"there are only {len(chosen)} different vectors, too few for {count} clusters; "
                "lower n_clusters or add more audio"
            )
        drawn = np.searchsorted(mass, random.random(draws) * mass[-1], side="right").clip(max=len(sample) - 1)
        options = [torch.minimum(distances, _squared(sample, sample[int(one)])) for one in drawn]
        best = int(np.argmin([float(option.double().sum()) for option in options]))
        distances = options[best]
        chosen.append(int(drawn[best]))
    return sample[chosen].clone()


def refine(points: Points, centres: torch.Tensor, max_iter: int, say: tp.Optional[OnIteration] = None) -> KmeansFit:
    """Move the centres into the middle of their points until they rest, `max_iter` times at most.

    A centre without points moves to one of those that lie farthest from theirs.
    """
    tolerance = TOLERANCE * points.variance()
    for iteration in range(1, max_iter + 1):
        sums, counts, inertia = _sweep(points, centres)
        means = (sums / counts.clamp_min(1)[:, None]).float()
        moved = torch.where(counts[:, None] > 0, means, centres)
        empty = torch.nonzero(counts == 0)[:, 0]
        if len(empty):
            moved[empty] = _farthest(points, moved[counts > 0], len(empty))
        shift = float((moved - centres).double().square().sum())
        centres = moved
        if say is not None:
            say(iteration, inertia / len(points))
        if shift <= tolerance and not len(empty):
            return KmeansFit(centres, iteration, True)
    return KmeansFit(centres, max_iter, False)


def measure(points: Points, centres: torch.Tensor, seed: int = 0) -> tp.Dict[str, float]:
    """Return figures of `centres` `[K, R]` as tokens of all points, whose number is `vectors`.

    `inertia` is the sum of squared distances to the nearest centre, `explained` the share of the variance that
    the tokens carry (1 - inertia / total). `silhouette` is the mean over a sample of `silhouette_sample` points, from
    -1 to 1, drawn by `seed`. `used` tokens occur at all, and `usage` is their share. `perplexity` is 2 to the entropy
    of the tokens in bits: how many equally frequent tokens would be as rich.
    """
    _, counts, inertia = _sweep(points, centres)
    total = points.variance() * points.space.dim * len(points)
    drawn = points.sample(_SCORED, np.random.default_rng(seed))
    used = int((counts > 0).sum())
    return {
        "vectors": len(points),
        "inertia": inertia,
        "explained": 1 - inertia / total if total > 0 else 0.0,
        "silhouette": silhouette(drawn, assign(drawn, centres)[0]),
        "silhouette_sample": len(drawn),
        "used": used,
        "usage": used / len(centres),
        "perplexity": perplexity(counts.cpu().numpy()),
    }


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


def _squared(points: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    return (points - centre).square().sum(1)


def _sweep(points: Points, centres: torch.Tensor) -> tp.Tuple[torch.Tensor, torch.Tensor, float]:
    """Return the sums float64 `[K, R]` and the numbers `[K]` of the points of each centre, and the inertia."""
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=centres.device)
    counts = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    inertia = torch.zeros((), dtype=torch.float64, device=centres.device)
    for chunk in points.chunks():
        nearest, squared = assign(chunk, centres)
        sums.index_add_(0, nearest, chunk.double())
        counts += torch.bincount(nearest, minlength=len(centres))
        inertia += squared.double().sum()
    return sums, counts, float(inertia)


def _farthest(points: Points, centres: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` points `[n, R]` of a sample that are far from all centres and from each other."""
    sample = points.sample(_SAMPLE, np.random.default_rng(0))
    far = assign(sample, centres)[1]
    found = []
    for _ in range(count):
        found.append(sample[far.argmax()])
        far = torch.minimum(far, _squared(sample, found[-1]))
    return torch.stack(found)
