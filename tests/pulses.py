"""Activations of beats and downbeats that no network has given: the same ones wherever they are made."""

import numpy as np


def make(seed: int) -> np.ndarray:
    """Return pulses of some tempo and bar, each a little early or late, in some noise; float32 [T, 2]."""
    rng = np.random.RandomState(seed)
    frames, period, bar = rng.randint(1, 1500), rng.randint(25, 115), rng.randint(2, 6)
    activation = rng.rand(frames, 2) ** 4 * rng.choice([0.0, 0.01, 0.2])
    for number, at in enumerate(range(rng.randint(0, 50), frames, period)):
        frame = min(max(at + rng.randint(-3, 4), 0), frames - 1)
        activation[frame, int(number % bar == 0)] = rng.rand()
    if seed % 5 == 0:
        activation[rng.rand(frames) < 0.3] = 0
    # as a softmax gives them, neither 0 nor 1: where no walk is possible madmom breaks
    activation = np.maximum(activation, 1e-9)
    activation *= 0.999 / np.maximum(activation.sum(axis=1, keepdims=True), 0.999)
    values: np.ndarray = activation.astype(np.float32)
    return values
