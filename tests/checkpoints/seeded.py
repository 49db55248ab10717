"""Random weights that are the same bits everywhere: numpy's frozen generator, seeded by each tensor's name."""

import json
import pathlib
import zlib

import numpy as np


def values(name, shape, seed=0, scale=1.0, centre=0.0):
    """Return float32 of `shape`, normal around `centre` with standard deviation `scale`.

    `RandomState` is frozen by numpy's own promise, and the name is part of the seed: neither the order of
    the tensors nor the version of anything changes a bit.
    """
    generator = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    return (centre + scale * generator.standard_normal(shape)).astype(np.float32)


def write_provenance(folder, model, size, seed):
    """Say beside the weights that they were never trained; every record made with them repeats it."""
    said = {"weights": "random-init", "model": model, "size": size, "seed": seed}
    pathlib.Path(folder, "PROVENANCE.json").write_text(json.dumps(said, indent=1) + "\n", "ascii")
