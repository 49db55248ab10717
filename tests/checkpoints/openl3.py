"""OpenL3's audio network with seeded random weights, as the published .h5.gz files lay it out.

The network has one size, so `tiny` and `full` are the same; it differs by the spectrogram that it reads in
nothing but what that makes of its inputs.
"""

import gzip
import io
import pathlib

import numpy as np

from checkpoints import seeded

_CHANNELS = (1, 64, 64, 128, 128, 256, 256, 512, 512)
_KERNEL = 3
_DECIBELS = -40.0, 20.0  # mean and standard deviation of the spectrogram: what the first normalisation expects


def make(folder, size="tiny", seed=0, input_repr="mel256", content_type="music"):
    """Write `openl3_audio_<repr>_<content>-v0_4_0.h5.gz` and its provenance; return its path."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"openl3_audio_{input_repr}_{content_type}-v0_4_0.h5.gz"
    with open(path, "wb") as target, gzip.GzipFile("", "wb", 1, target, mtime=0) as packed:
        packed.write(_encode(layers(seed)))
    seeded.write_provenance(folder, "openl3", size, seed)
    return path


def layers(seed=0):
    """Return the weights of each layer, by its name in the file and in the file's order."""
    found = {"input_1": {}}
    for index in range(len(_CHANNELS) - 1):
        name = f"batch_normalization_{index}" if index else "batch_normalization"
        found[name] = _normalisation(name, _CHANNELS[index], seed, first=index == 0)
        if index:
            found[f"activation_{index - 1}" if index > 1 else "activation"] = {}
        last = index == len(_CHANNELS) - 2
        name = "audio_embedding_layer" if last else f"conv2d_{index}" if index else "conv2d"
        found[name] = _convolution(name, _CHANNELS[index], _CHANNELS[index + 1], seed)
    return found


def _normalisation(name, channels, seed, first):
    mean, deviation = _DECIBELS if first else (0.0, 1.0)
    spread = 0.1 * deviation
    return {
        "gamma": seeded.values(f"{name}/gamma", channels, seed, 0.1, 1.0),
        "beta": seeded.values(f"{name}/beta", channels, seed, 0.1),
        "moving_mean": seeded.values(f"{name}/moving_mean", channels, seed, spread, mean),
        "moving_variance": deviation**2 * np.exp(seeded.values(f"{name}/moving_variance", channels, seed, 0.1)),
    }


def _convolution(name, inputs, outputs, seed):
    scale = (2.0 / (_KERNEL**2 * inputs)) ** 0.5  # keeps the variance through a ReLU
    return {
        "kernel": seeded.values(f"{name}/kernel", (_KERNEL, _KERNEL, inputs, outputs), seed, scale),
        "bias": seeded.values(f"{name}/bias", outputs, seed, 0.1),
    }


def _encode(arrays):
    """Return the bytes of a Keras 2 file of weights."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        for layer, weights in arrays.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}/{name}:0".encode() for name in weights], dtype="S")
            for name, values in weights.items():
                group[f"{layer}/{name}:0"] = np.asarray(values, np.float32)
    return buffer.getvalue()
