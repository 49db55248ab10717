"""The ensemble against the textbook, one step, one direction and one network at a time."""

import numpy as np
import pytest

from worker.networks import peephole_lstm
from worker.networks.peephole_lstm import Direction, Ensemble, LstmNetwork

INPUTS, UNITS = 11, 5


def random_direction(rng: np.random.RandomState, inputs: int) -> Direction:
    shapes = ((inputs, 4, UNITS), (UNITS, 4, UNITS), (4, UNITS), (3, UNITS))
    return Direction(*[rng.normal(0, 0.7, shape).astype(np.float32) for shape in shapes])


def random_network(seed: int, activation: str = "sigmoid", outputs: int = 1, depth: int = 3) -> LstmNetwork:
    rng = np.random.RandomState(seed)
    sizes = [INPUTS] + [2 * UNITS] * (depth - 1)
    layers = tuple((random_direction(rng, size), random_direction(rng, size)) for size in sizes)
    weights = rng.normal(0, 1, (2 * UNITS, outputs)).astype(np.float32)
    return LstmNetwork(layers, weights, rng.normal(0, 1, outputs).astype(np.float32), activation)


def random_features(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).uniform(0, 2, (frames, INPUTS)).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    probability: np.ndarray = 1 / (1 + np.exp(-x))
    return probability


def naive_direction(weights: Direction, x: np.ndarray) -> np.ndarray:
    into, back, bias, peep = (array.astype(np.float64) for array in weights)
    h, c, states = np.zeros(UNITS), np.zeros(UNITS), []
    for frame in x:
        i, f, g, o = (frame @ into[:, k] + h @ back[:, k] + bias[k] for k in range(4))
        c = sigmoid(f + c * peep[1]) * c + sigmoid(i + c * peep[0]) * np.tanh(g)
        h = sigmoid(o + c * peep[2]) * np.tanh(c)
        states.append(h)
    return np.array(states)


def naive_network(network: LstmNetwork, x: np.ndarray) -> np.ndarray:
    for forward, backward in network.layers:
        x = np.hstack([naive_direction(forward, x), naive_direction(backward, x[::-1])[::-1]])
    logits = x @ network.weights.astype(np.float64) + network.bias
    if network.activation == "sigmoid":
        return sigmoid(logits)
    powers: np.ndarray = np.exp(logits)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@pytest.mark.parametrize("activation, outputs", [("sigmoid", 1), ("softmax", 3)])
@pytest.mark.parametrize("frames", [1, 2, peephole_lstm.CHUNK, peephole_lstm.CHUNK + 3])
def test_equals_the_step_by_step_formula(frames: int, activation: str, outputs: int) -> None:
    networks = [random_network(seed, activation, outputs) for seed in range(3)]
    features = random_features(frames)
    expected = np.mean([naive_network(network, features.astype(np.float64)) for network in networks], axis=0)
    found = Ensemble(networks)(features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)


def test_every_network_counts() -> None:
    networks = [random_network(seed) for seed in range(2)]
    features = random_features(20)
    both, first, second = (Ensemble(some)(features) for some in (networks, networks[:1], networks[1:]))
    np.testing.assert_allclose(both, (first + second) / 2, rtol=0, atol=1e-7)
    assert np.abs(first - second).max() > 0.01


def test_extreme_logits_stay_probabilities() -> None:
    network = random_network(0, "softmax", 3)
    loud = network._replace(weights=network.weights * np.float32(1e4))
    found = Ensemble([loud])(random_features(10))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "other", [random_network(1, "softmax"), random_network(1, depth=2)], ids=["activation", "depth"]
)
def test_unlike_networks_are_refused(other: LstmNetwork) -> None:
    with pytest.raises(ValueError, match="the same layers and activation"):
        Ensemble([random_network(0), other])
