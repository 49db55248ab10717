"""OpenL3's audio network as a Keras graph, from a spectrogram to its twelve pooled feature vectors.

Architecture: Cramer, Wu, Salamon, Bello, "Look, Listen and Learn More: Design Choices for Deep Audio
Embeddings", ICASSP 2019, section 2, after Arandjelovic and Zisserman, "Look, Listen and Learn" (2017),
figure 3: eight convolutions of 3 x 3 in pairs, each but the last normalised and rectified, and a maximum
over 2 x 2 behind each of the first three pairs.
"""

import gzip
import io
import typing as tp
import zlib

import h5py
import keras
import numpy as np
import tensorflow as tf

from tf_models import layers

POSITIONS = 12  # maxima of the feature maps: 4 along frequency, 3 along time
FEATURES = 512  # channels of the feature maps

_Network = tp.Callable[[np.ndarray], np.ndarray]

_GRID = (4, 3)
_CONVOLUTIONS = 8
_DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, zlib.error)  # as h5py and gzip see it
_LARGEST = 1 << 28  # bytes of a file that is unpacked; the published ones have 19 million


class OpenL3Weights(tp.NamedTuple):
    """The arrays of all layers, in the order in which the audio passes them."""

    convolutions: tp.List[tp.List[np.ndarray]]  # kernel [3, 3, C_in, C_out], bias [C_out]
    norms: tp.List[tp.List[np.ndarray]]  # gamma, beta, mean, variance [C]


def read_h5(path: str) -> OpenL3Weights:
    """Return the weights of a Keras .h5 or .h5.gz file; nothing that it describes is executed.

    Layers and their arrays count by their order, as where Keras loads such a file: their names depend on
    what else the author's process had built before. Layers of a front end are left alone.

    Raises:
        ValueError: the file is damaged, or of another network.
    """
    try:
        with h5py.File(io.BytesIO(_unpack(path)), "r") as file:
            found = _read_layers(file.get("model_weights", file))
    except _DAMAGE as error:
        raise ValueError(f"{path}: not an .h5 file of Keras weights ({error}); download it again") from error
    weights = OpenL3Weights([], [])
    for arrays in found:
        ranks = [array.ndim for array in arrays]
        if ranks == [4, 1]:
            weights.convolutions.append(arrays)
        elif ranks == [1, 1, 1, 1]:
            weights.norms.append(arrays)
    problem = _find_problem(weights)
    if problem:
        raise ValueError(f"{path}: not the weights of an OpenL3 audio network: {problem}")
    return weights


def _unpack(path: str) -> bytes:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes")
    return content


def _read_layers(root: tp.Any) -> tp.List[tp.List[np.ndarray]]:
    """Return the arrays of each layer in the order of the file; a nested model has several in one group."""
    found: tp.Dict[str, tp.List[np.ndarray]] = {}
    for group in map(_text, root.attrs["layer_names"]):
        for name in map(_text, root[group].attrs["weight_names"]):
            found.setdefault(f"{group}/{name.rpartition('/')[0]}", []).append(np.array(root[group][name], np.float32))
    return list(found.values())


def _find_problem(weights: OpenL3Weights) -> str:
    """Return what does not fit, or nothing."""
    counts = (len(weights.convolutions), len(weights.norms))
    if counts != (_CONVOLUTIONS, _CONVOLUTIONS):
        return f"{counts[0]} convolutions and {counts[1]} normalisations, expected {_CONVOLUTIONS} of each"
    channels = 1
    for index, ((kernel, bias), norm) in enumerate(zip(weights.convolutions, weights.norms)):
        if {array.shape for array in norm} != {(channels,)}:
            return f"normalisation {index} is not one of {channels} channels"
        if kernel.shape[:3] != (3, 3, channels) or bias.shape != kernel.shape[3:]:
            return f"convolution {index} has a kernel {kernel.shape}, expected (3, 3, {channels}, channels)"
        channels = kernel.shape[3]
    return "" if channels == FEATURES else f"it ends in {channels} channels, expected {FEATURES}"


def stft(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Return the spectrum complex64 `[frames, length // 2 + 1]` of `samples`, rounded as in upstream's front end."""
    spectrum: np.ndarray = tf.signal.stft(tf.constant(samples), length, hop, length).numpy()
    return spectrum


def build(weights: OpenL3Weights, bands: int, frames: int) -> _Network:
    """Return the network of what `read_h5` returns, as a traced function.

    Returns:
        A function of spectrograms float32 `[B, bands, frames]` in decibels that returns the maxima float32
        `[B, 12, 512]` of the feature maps over a grid of 4 x 3 fields.
    """
    spectrogram = keras.Input((bands, frames, 1))
    model = keras.Model(spectrogram, _connect(weights, spectrogram))
    signature = [tf.TensorSpec((None, bands, frames, 1), tf.float32)]
    # Called as it stands: a concrete function would not keep the model, and so the weights, alive.
    predict = tf.function(lambda x: model(x, training=False), input_signature=signature)

    def network(spectrograms: np.ndarray) -> np.ndarray:
        maxima: np.ndarray = predict(tf.constant(spectrograms[..., None])).numpy()
        return maxima.reshape(len(spectrograms), POSITIONS, FEATURES)

    return network


def _connect(weights: OpenL3Weights, x: tp.Any) -> tp.Any:
    for index, (convolution, norm) in enumerate(zip(weights.convolutions, weights.norms)):
        x = layers.normalize(norm, x)
        if index:
            x = keras.layers.ReLU()(x)
        if index in (2, 4, 6):
            x = keras.layers.MaxPooling2D(2)(x)
        x = layers.apply(keras.layers.Conv2D(convolution[0].shape[3], 3, padding="same"), convolution, x)
    field = (x.shape[1] // _GRID[0], x.shape[2] // _GRID[1])
    return keras.layers.MaxPooling2D(field)(x)


def _text(name: tp.Union[str, bytes]) -> str:
    return name.decode() if isinstance(name, bytes) else name
