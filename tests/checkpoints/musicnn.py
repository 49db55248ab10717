"""MSD_musicnn_big.h5 of musicnn_keras with seeded random weights.

The layers, their order and the names of their variables are those of the published MSD_musicnn.h5, with the
sizes of the big model. The description of the Keras graph is left out: only upstream reads it.
"""

import pathlib

from checkpoints import seeded

SIZES = {"full": (512, 500, 50), "tiny": (8, 10, 50)}  # filters of the mid-end, units, tags

_FRONT = ((7, 38, 204), (7, 67, 204), (128, 1, 51), (64, 1, 51), (32, 1, 51))  # frames, bands, filters
_WIDTH = 561  # of the front-end: all its filters


def make(folder, size="tiny", seed=0):
    """Write `<folder>/MSD_musicnn_big.h5` and `PROVENANCE.json`; return the path of the file."""
    import h5py

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "MSD_musicnn_big.h5"
    with h5py.File(str(path), "w") as file:
        layers = Layers(file.create_group("model_weights"), seed)
        add_layers(layers, *SIZES[size])
        layers.close()
    seeded.write_provenance(folder, "musicnn", size, seed)
    return path


def add_layers(layers, middle, units, tags):
    """Add all layers, with activations of ordinary size."""
    layers.normalize("batch_normalization", 1, mean=1.0, deviation=1.0)
    for index, (frames, bands, filters) in enumerate(_FRONT):
        layers.connect(_number("conv2d", index), (frames, bands, 1, filters))
    for index, (_, _, filters) in enumerate(_FRONT, start=1):
        layers.normalize(_number("batch_normalization", index), filters, deviation=3.0)
    for index, channels in ((1, _WIDTH), (2, middle), (3, middle)):
        layers.connect(f"midend_conv{index}", (7, channels, 1, middle), suffix="")
        layers.normalize(f"bn_midend_conv{index}", middle, suffix="")
    layers.normalize("bn_flatpool", 2 * (_WIDTH + 3 * middle), suffix="")
    layers.connect("dense", (2 * (_WIDTH + 3 * middle), units))
    layers.normalize("bn_dense", units, deviation=1.0, suffix="")
    layers.connect("dense_1", (units, tags))


class Layers:
    """Layers of a Keras file; a variable whose name Keras had used before ends in `_1`."""

    def __init__(self, root, seed):
        self._root = root
        self._seed = seed
        self._names = []

    def connect(self, layer, shape, suffix="_1"):
        """Add kernel and bias."""
        fan_in = 1
        for size in shape[:-1]:
            fan_in *= size
        self._add(layer, suffix, kernel=(shape, 1 / fan_in**0.5, 0.0), bias=(shape[-1:], 0.1, 0.0))

    def normalize(self, layer, size, mean=0.5, deviation=2.0, suffix="_1"):
        """Add what batch normalisation learns, and the moments that it has seen; some scales are negative."""
        moments = {"moving_mean": ((size,), 0.1, mean), "moving_variance": ((size,), deviation**2 / 10, deviation**2)}
        self._add(layer, suffix, gamma=((size,), 0.6, 1.0), beta=((size,), 0.1, 0.0), **moments)

    def close(self):
        """Write the names in order."""
        self._root.attrs["layer_names"] = self._names

    def _add(self, layer, suffix, **variables):
        group = self._root.create_group(layer)
        stored = []
        for name, (shape, scale, centre) in variables.items():
            path = f"{layer}/{name}{suffix}:0"
            values = seeded.values(f"{layer}/{name}", shape, self._seed, scale, centre)
            group.create_dataset(path, data=values)
            stored.append(path.encode())
        group.attrs["weight_names"] = stored
        self._names.append(layer.encode())


def _number(name, index):
    return f"{name}_{index}" if index else name
