"""Our beats against those that madmom 0.16.1 finds in the same activations; data/madmom/README.md says how."""

import os
import typing as tp

import numpy as np
import pulses
import pytest

from worker.networks.beat_tracking import find_beats

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "madmom")
SEEDS = range(40)
CLIPS = ("vibe_ace", "vibe_ace_long")


def load(file: str, name: str) -> np.ndarray:
    with np.load(os.path.join(DATA, file)) as archive:
        return np.asarray(archive[name])


def activation(name: str) -> np.ndarray:
    kind, _, seed = name.partition("_")
    return pulses.make(int(seed)) if kind == "pulses" else load(name + ".npz", "downbeats")


@pytest.mark.parametrize("name", ["pulses_{}".format(seed) for seed in SEEDS] + list(CLIPS))
def test_every_beat_and_its_number_is_upstreams(name: str) -> None:
    found, expected = find_beats(activation(name)), load("beats.npz", name)
    assert found.dtype == np.float32 and found.shape == expected.shape and len(found) > 2
    np.testing.assert_array_equal(found[:, 1], expected[:, 1])
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-6, atol=0)


QUIET: tp.Dict[str, np.ndarray] = {
    "one frame": np.full((1, 2), 0.4, np.float32),
    "silence": np.full((500, 2), 0.01, np.float32),
    "zeros": np.zeros((500, 2), np.float32),
    "below the threshold": np.full((500, 2), 0.0499, np.float32),
    "no walk is possible": np.tile(np.array([[0, 1]], np.float32), (500, 1)),
    "the sum is above one": np.tile(np.array([[0.6, 0.5]], np.float32), (500, 1)),
}


@pytest.mark.parametrize("name", sorted(QUIET))
def test_where_there_is_no_beat_there_is_an_empty_array(name: str) -> None:
    found = find_beats(QUIET[name])
    assert found.shape == (0, 2) and found.dtype == np.float32


def test_the_beats_of_a_steady_bar_of_three_are_counted_to_three() -> None:
    values = np.full((1000, 2), 0.01, np.float32)
    values[20::50, 0] = 0.8
    values[20::150] = [0.1, 0.8]
    found = find_beats(values)
    np.testing.assert_allclose(found[:, 0], np.arange(0.2, 10, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1], [1 + number % 3 for number in range(20)])


def test_frames_before_and_behind_change_nothing_but_the_time() -> None:
    values = pulses.make(3)
    quiet = np.full((777, 2), 0.001, np.float32)
    moved = find_beats(np.concatenate([quiet, values, quiet]))
    expected = find_beats(values) + np.array([7.77, 0], np.float32)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
