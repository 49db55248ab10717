"""Keras layers that begin with their trained weights."""

import typing as tp

import keras
import numpy as np


def apply(layer: tp.Any, arrays: tp.Sequence[np.ndarray], x: tp.Any) -> tp.Any:
    """Return what a new layer with the weights `arrays` makes of `x`."""
    y = layer(x)  # which tells the layer the shapes of its weights
    layer.set_weights(arrays)
    return y


def normalize(arrays: tp.Sequence[np.ndarray], x: tp.Any) -> tp.Any:
    """Batch normalisation with gamma, beta, mean and variance `[C]`, of the training set."""
    return apply(keras.layers.BatchNormalization(epsilon=1e-3), arrays, x)
