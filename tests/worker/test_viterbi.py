"""The banded search against a textbook one over the full 360 x 360 model, and the local average."""

import typing as tp

import numpy as np
import pytest

from worker.networks import viterbi

BINS = 360


def _decode_naively(observations: np.ndarray) -> tp.List[int]:
    """Fill the whole lattice, then walk back; of equal predecessors the highest wins."""
    distance = np.abs(np.arange(BINS)[:, None] - np.arange(BINS))
    transition = np.maximum(12 - distance, 0).astype(float)
    transition /= transition.sum(axis=1, keepdims=True)
    emission = np.full((BINS, BINS), 0.9 / BINS) + 0.1 * np.eye(BINS)
    with np.errstate(divide="ignore"):
        transition = np.log(transition)
    emission = np.log(emission)
    lattice = [np.log(np.full(BINS, 1 / BINS)) + emission[:, observations[0]]]
    for observation in observations[1:]:
        arrivals = lattice[-1][:, None] + transition
        lattice.append(arrivals.max(axis=0) + emission[:, observation])
    path = [int(lattice[-1].argmax())]
    for row in reversed(lattice[:-1]):
        scores = row + transition[:, path[-1]]
        path.append(int(np.flatnonzero(scores == scores.max())[-1]))
    return path[::-1]


def _make_observations(kind: str) -> np.ndarray:
    random = np.random.RandomState(7)
    return {
        "single": np.array([17]),
        "constant": np.full(40, 200),
        "lowest": np.zeros(30, np.int64),
        "highest": np.full(30, BINS - 1),
        "two far bins in turn": np.tile([20, 300], 25),
        "tie between neighbours": np.tile([100, 101], 25),
        "even gaps": np.repeat([50, 62, 74, 50], 10),
        "one outlier": np.concatenate([np.full(20, 90), [330], np.full(20, 90)]),
        "slow sweep": np.arange(BINS)[::4],
        "fast sweep": np.arange(BINS)[::11],
        "unreachable sweep": np.arange(BINS)[::12],
        "uniform noise": random.randint(0, BINS, 120),
        "narrow noise": 180 + random.randint(-6, 7, 120),
        "noise at the bottom": random.randint(0, 8, 60),
        "noise at the top": BINS - 1 - random.randint(0, 8, 60),
    }[kind]


KINDS = [
    "single", "constant", "lowest", "highest", "two far bins in turn", "tie between neighbours", "even gaps",
    "one outlier", "slow sweep", "fast sweep", "unreachable sweep", "uniform noise", "narrow noise",
    "noise at the bottom", "noise at the top",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_path_equals_full_search(kind: str) -> None:
    observations = _make_observations(kind)
    assert viterbi.find_path(observations).tolist() == _decode_naively(observations)


@pytest.mark.parametrize("seed", range(4))
def test_path_equals_full_search_on_random_walks(seed: int) -> None:
    random = np.random.RandomState(seed)
    walk = np.clip(np.cumsum(random.randint(-15, 16, 150)) + 180, 0, BINS - 1)
    assert viterbi.find_path(walk).tolist() == _decode_naively(walk)


def test_path_ignores_one_outlier() -> None:
    observations = _make_observations("one outlier")
    assert set(viterbi.find_path(observations).tolist()) == {90}


def test_path_never_jumps_further_than_eleven_bins() -> None:
    path = viterbi.find_path(_make_observations("uniform noise"))
    assert np.abs(np.diff(path)).max() <= 11


def _average_naively(row: np.ndarray, center: int) -> float:
    start, stop = max(0, center - 4), min(BINS, center + 5)
    cents = 1997.3794084376191 + 20 * np.arange(BINS)
    weights = row[start:stop].astype(float)
    return float(10 * 2 ** ((weights * cents[start:stop]).sum() / weights.sum() / 1200))


def test_frequency_averages_around_the_path_and_stops_at_the_ends() -> None:
    activation = np.random.RandomState(3).rand(6, BINS).astype(np.float32)
    path = np.array([0, 2, 180, 355, 357, 359])
    expected = [_average_naively(row, center) for row, center in zip(activation, path)]
    np.testing.assert_allclose(viterbi.compute_frequency(activation, path), expected, rtol=1e-12)


@pytest.mark.parametrize("bin_, hertz", [(0, 31.7002), (180, 253.6), (359, 2005.5)])
def test_frequency_of_a_single_active_bin(bin_: int, hertz: float) -> None:
    activation = np.zeros((1, BINS), np.float32)
    activation[0, bin_] = 0.5
    frequency = viterbi.compute_frequency(activation, np.array([bin_]))
    # Bins lie 20 cents apart: 10 Hz * 2 ** ((1997.379 + 20 * bin) / 1200).
    np.testing.assert_allclose(frequency, [hertz], rtol=1e-4)


def test_frequency_is_zero_where_nothing_is_active() -> None:
    activation = np.zeros((2, BINS), np.float32)
    activation[1, 100] = 1
    frequency = viterbi.compute_frequency(activation, np.array([100, 100]))
    assert frequency[0] == 0
    assert frequency[1] > 0
