"""MusiCNN and its VGG baseline as Keras graphs with all features as outputs of one pass.

Architecture: Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio
tagging" (ISMIR 2019 late-breaking), and Pons et al., "End-to-end learning for music audio tagging at
scale" (ISMIR 2018), section 3. Weights come from the TensorFlow 1 checkpoints of the distribution
`musicnn`, or from an .h5 file of `musicnn_keras`; both hold the same tensors under different names.
"""

import functools
import typing as tp

import h5py
import numpy as np
import tensorflow as tf

FRAMES = 187  # of one patch
BANDS = 96

_Weights = tp.Mapping[str, np.ndarray]  # by the name in the TensorFlow 1 checkpoints: "conv2d_5/kernel"
_Network = tp.Callable[[np.ndarray], tp.Dict[str, np.ndarray]]  # patches [B, 187, 96] -> features [B, D]
Pool = tp.Callable[[tp.Any], tp.Any]

_VGG_POOLS = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))  # size, stride

_MUSICNN_LAYERS = {
    **{f"midend_conv{i}": f"conv2d_{i + 4}" for i in (1, 2, 3)},
    **{f"bn_midend_conv{i}": f"batch_normalization_{i + 5}" for i in (1, 2, 3)},
    "bn_flatpool": "batch_normalization_9",
    "bn_dense": "batch_normalization_10",
}
_VGG_LAYERS = {
    "bn_input": "batch_normalization",
    **{f"bn_conv{i}": f"batch_normalization_{i}" for i in (1, 2, 3, 4, 5)},
    "output": "dense",
}


def read_checkpoint(prefix: str) -> _Weights:
    """Return the tensors of the TensorFlow 1 checkpoint `<prefix>.index` and `<prefix>.data-*`."""
    # The reader takes the prefix itself: the `checkpoint` file beside it names a folder of its author.
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    names = [name for name in reader.get_variable_to_shape_map() if "Adam" not in name]
    return {name: reader.get_tensor(name) for name in names}


def read_h5(path: str) -> _Weights:
    """Return the tensors of a Keras .h5 file without executing the model description inside.

    Raises:
        ValueError: the file has not the layout of `musicnn_keras`.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read_layers(file["model_weights"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: not an .h5 model of musicnn_keras ({error})") from error


def _read_layers(root: tp.Any) -> _Weights:
    layers = [_text(name) for name in root.attrs["layer_names"]]
    aliases = _VGG_LAYERS if "1CNN" in layers else _MUSICNN_LAYERS
    weights = {}
    for layer in layers:
        for stored in root[layer].attrs["weight_names"]:
            variable = _text(stored).split("/")[-1].split(":")[0]
            if variable.endswith("_1"):  # Keras numbers a variable whose name its author used before
                variable = variable[: -len("_1")]
            weights[f"{aliases.get(layer, layer)}/{variable}"] = np.array(root[layer][stored])
    return weights


def is_vgg(weights: _Weights) -> bool:
    """Return whether the weights belong to the VGG baseline."""
    return "1CNN/kernel" in weights


def build(weights: _Weights, batch_size: int) -> _Network:
    """Return the network as one traced function of fixed shape.

    Args:
        weights: as `read_checkpoint` and `read_h5` return them; the sizes of the layers follow from them.
        batch_size: B of every call.

    Returns:
        A function of patches float32 `[B, 187, 96]` that returns `taggram` `[B, tags]` (probabilities),
        `embedding` `[B, D]`, and for MusiCNN `max_pool` `[B, D]` and `penultimate` `[B, units]`.

    Raises:
        ValueError: a tensor is missing or does not fit.
    """
    patch = tf.keras.Input((FRAMES, BANDS, 1), batch_size=batch_size)
    outputs = (_build_vgg if is_vgg(weights) else _build_musicnn)(_Layers(weights), patch)
    model = tf.keras.Model(patch, outputs)
    signature = [tf.TensorSpec(patch.shape, tf.float32)]
    # Called as it stands: a concrete function would not keep the model, and so the weights, alive.
    predict = tf.function(lambda x: model(x, training=False), input_signature=signature)

    def network(patches: np.ndarray) -> tp.Dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in predict(tf.constant(patches[..., None])).items()}

    return network


class _Layers:
    """Keras layers that begin with their trained weights."""

    def __init__(self, weights: _Weights) -> None:
        self._weights = weights

    def convolve(self, name: str, x: tp.Any, padding: str = "valid") -> tp.Any:
        """Convolution and ReLU, `[B, H, W, C]` -> `[B, H', W', filters]`."""
        kernel, bias = self._take(name, "kernel", "bias")
        return tf.nn.relu(self._convolve(kernel, bias, x, padding))

    def convolve_and_pool(self, name: str, index: int, x: tp.Any, padding: str, pool: Pool) -> tp.Any:
        """Convolution, ReLU, batch normalisation `index`, maximum: with the cheap steps after the maximum.

        ReLU and normalisation are monotonic in each channel, so they commute with the maximum, except that
        a channel with a negative scale needs its minimum: its filter is negated before and after. Equal in
        every bit to the order in the papers; MusiCNN gains a third, as its maps are large before pooling.
        """
        kernel, bias = self._take(name, "kernel", "bias")
        (scale,) = self._take(_number("batch_normalization", index), "gamma")
        sign = np.where(scale < 0, -1, 1).astype(np.float32)
        pooled = pool(self._convolve(kernel * sign, bias * sign, x, padding))
        return self.normalize(index, tf.nn.relu(pooled * sign))

    def connect(self, name: str, x: tp.Any, activation: str) -> tp.Any:
        """Fully connected layer, `[B, C]` -> `[B, units]`."""
        kernel, bias = self._take(name, "kernel", "bias")
        return tf.keras.layers.Dense(kernel.shape[1], activation, weights=[kernel, bias])(x)

    def normalize(self, index: int, x: tp.Any) -> tp.Any:
        """Batch normalisation with the moments of the training set; the last axis is the channel."""
        weights = self._take(_number("batch_normalization", index), "gamma", "beta", "moving_mean", "moving_variance")
        return tf.keras.layers.BatchNormalization(epsilon=1e-3, weights=weights)(x)

    def _convolve(self, kernel: np.ndarray, bias: np.ndarray, x: tp.Any, padding: str) -> tp.Any:
        height, width, _, filters = kernel.shape
        layer = tf.keras.layers.Conv2D(filters, (height, width), padding=padding, weights=[kernel, bias])
        return layer(x)

    def _take(self, layer: str, *variables: str) -> tp.List[np.ndarray]:
        names = [f"{layer}/{variable}" for variable in variables]
        for name in names:
            if name not in self._weights:
                raise ValueError(f"no {name} in the checkpoint: neither a MusiCNN nor its VGG")
        return [self._weights[name] for name in names]


def _build_musicnn(layers: _Layers, patch: tp.Any) -> tp.Dict[str, tp.Any]:
    front = _build_front_end(layers, layers.normalize(0, patch))
    first = _convolve_in_time(layers, 5, front)
    second = first + _convolve_in_time(layers, 6, first)
    third = second + _convolve_in_time(layers, 7, second)
    features = tf.concat([front, first, second, third], axis=2)
    max_pool = tf.reduce_max(features, axis=1)
    mean_pool = tf.reduce_mean(features, axis=1)
    # The dense layer was trained on max and mean of each channel side by side, not one after the other.
    pooled = tf.reshape(tf.stack([max_pool, mean_pool], axis=2), [patch.shape[0], 2 * mean_pool.shape[1]])
    hidden = layers.connect("dense", layers.normalize(9, pooled), "relu")
    penultimate = layers.normalize(10, hidden)
    taggram = layers.connect("dense_1", penultimate, "sigmoid")
    return {"embedding": mean_pool, "taggram": taggram, "max_pool": max_pool, "penultimate": penultimate}


def _build_front_end(layers: _Layers, patch: tp.Any) -> tp.Any:
    """Two timbral and three temporal convolutions, each maximised over frequency: `[B, 187, 561]`."""
    padded, highest = _pad_time(patch), functools.partial(tf.reduce_max, axis=2)
    inputs = ((padded, "valid"), (padded, "valid"), (patch, "same"), (patch, "same"), (patch, "same"))
    maps = []
    for index, (x, padding) in enumerate(inputs):
        maps.append(layers.convolve_and_pool(_number("conv2d", index), index + 1, x, padding, highest))
    return tf.concat(maps, axis=2)


def _convolve_in_time(layers: _Layers, index: int, x: tp.Any) -> tp.Any:
    """`[B, T, C]` -> `[B, T, filters]`, every filter spanning 7 frames and all channels."""
    convolved = layers.convolve(f"conv2d_{index}", _pad_time(x[..., None]))
    return layers.normalize(index + 1, convolved)[:, :, 0, :]


def _build_vgg(layers: _Layers, patch: tp.Any) -> tp.Dict[str, tp.Any]:
    x = layers.normalize(0, patch)
    for index, (size, stride) in enumerate(_VGG_POOLS, start=1):
        pool = functools.partial(tf.nn.max_pool2d, ksize=size, strides=stride, padding="VALID")
        x = layers.convolve_and_pool(f"{index}CNN", index, x, "same", pool)
    pooled = tf.reshape(x, [patch.shape[0], x.shape[1] * x.shape[2] * x.shape[3]])
    return {"embedding": pooled, "taggram": layers.connect("dense", pooled, "sigmoid")}


def _pad_time(x: tp.Any) -> tp.Any:
    """Three frames of zeros on both sides keep the length under a filter of seven frames."""
    return tf.pad(x, [[0, 0], [3, 3], [0, 0], [0, 0]])


def _number(kind: str, index: int) -> str:
    return f"{kind}_{index}" if index else kind


def _text(name: tp.Union[str, bytes]) -> str:
    return name.decode() if isinstance(name, bytes) else name
