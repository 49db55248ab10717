"""From CREPE's pitch bins to Hz: the most likely path through a file, and what lies around it.

Hidden Markov model: Kim et al., "CREPE", ICASSP 2018, and the published implementation of it. The bins
are the states and the strongest bin of a frame is the observation. A state moves by less than 12 bins,
with probabilities that fall linearly; every bin may start, and may be observed from any other.

Sums of logarithms tie often here, because a handful of numbers makes up the whole model. Ties are broken
as the published implementation's solver does (hmmlearn): of equal predecessors the highest bin, of equal
last states the lowest.
"""

import numpy as np

BINS = 360
FIRST_CENTS = 1997.3794084376191  # of bin 0, above 10 Hz
LAST_CENTS = FIRST_CENTS + 7180  # 20 cents from bin to bin
REFERENCE = 10.0  # Hz at 0 cents

_REACH = 12  # bins; a move of this many has probability zero
_WIDTH = 2 * _REACH - 1
_SELF_EMISSION = 0.1  # probability, beyond the uniform share, that a state shows itself
_NEIGHBOURS = 4  # bins on each side that enter the local average


def find_path(observations: np.ndarray) -> np.ndarray:
    """Return the most likely states int64 [T] where the strongest bin of each frame is [T], T >= 1.

    Viterbi's algorithm over a band of 23 predecessors.
    """
    transitions = _make_transitions()
    miss, hit = np.log(0.9 / BINS), np.log(_SELF_EMISSION + 0.9 / BINS)
    # Likelihoods stand inside borders of minus infinity, so that every state has 23 predecessors.
    padded = np.full(BINS + _WIDTH - 1, -np.inf)
    likelihood = padded[_REACH - 1 : _REACH - 1 + BINS]
    windows = np.lib.stride_tricks.as_strided(padded, (BINS, _WIDTH), padded.strides * 2, writeable=False)
    moves = np.empty((len(observations), BINS), np.int8)
    states = np.arange(BINS)
    likelihood[:] = np.log(1 / BINS) + miss
    likelihood[observations[0]] = np.log(1 / BINS) + hit
    for time in range(1, len(observations)):
        scores = windows[:, ::-1] + transitions  # from the highest predecessor: argmax takes the first
        best = scores.argmax(axis=1)
        moves[time] = _REACH - 1 - best
        emitted = scores[states, best]
        observed = emitted[observations[time]] + hit
        np.add(emitted, miss, out=likelihood)
        likelihood[observations[time]] = observed
    return _trace_back(moves, int(likelihood.argmax()))


def compute_frequency(activation: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return the pitch in Hz, float64 [T]: the mean of the bins around the path, weighted by their activation.

    Of `activation` float32 [T, 360] and `path` [T], the bin of each frame; 0 where the activation around it is zero.
    """
    cents = np.linspace(FIRST_CENTS, LAST_CENTS, BINS)
    bins = path[:, None] + np.arange(-_NEIGHBOURS, _NEIGHBOURS + 1)
    inside = (bins >= 0) & (bins < BINS)
    bins = np.clip(bins, 0, BINS - 1)
    weights = np.where(inside, np.take_along_axis(activation, bins, axis=1), 0).astype(np.float64)
    total = weights.sum(axis=1)
    heard = total > 0
    mean = (weights * cents[bins]).sum(axis=1) / np.where(heard, total, 1)
    frequency: np.ndarray = np.where(heard, REFERENCE * 2 ** (mean / 1200), 0)
    return frequency


def _make_transitions() -> np.ndarray:
    """Return log probabilities [360, 23] of reaching a state from `state + 11`, ..., `state - 11`."""
    triangle = np.maximum(_REACH - np.abs(np.subtract.outer(np.arange(BINS), np.arange(BINS))), 0)
    sums = triangle.sum(axis=1)  # smaller near the ends: a state there has fewer successors
    sources = np.arange(BINS)[:, None] + np.arange(_REACH - 1, -_REACH, -1)
    shares = _REACH - np.abs(np.arange(_REACH - 1, -_REACH, -1))
    inside = (sources >= 0) & (sources < BINS)
    probability = np.where(inside, shares / sums[np.clip(sources, 0, BINS - 1)], 1)
    transitions: np.ndarray = np.where(inside, np.log(probability), -np.inf)
    return transitions


def _trace_back(moves: np.ndarray, last: int) -> np.ndarray:
    """Return the path that ends in `last`, following `moves` [T, 360] from state to predecessor."""
    path = np.empty(len(moves), np.int64)
    path[-1] = last
    for time in range(len(moves) - 1, 0, -1):
        path[time - 1] = path[time] + moves[time, path[time]]
    return path
