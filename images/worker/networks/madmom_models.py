"""Reads madmom's pickled networks without madmom, and without trusting the pickle.

A pickle is a program that may call whatever it can name. Ours can name twelve things, and each of them is
replaced by an inert class or word of this module: not even numpy's own constructors are called. The result
is checked, and turned into plain arrays.
"""

import io
import pickle
import typing as tp

import numpy as np

from worker.networks.peephole_lstm import Direction, LstmNetwork

_GATES = ("input_gate", "forget_gate", "cell", "output_gate")


class ModelFileError(ValueError):
    """A model file that is not one of madmom's LSTM networks."""


class _Node:
    """An object of the pickle, as a bag of attributes."""

    def __setstate__(self, state: tp.Any) -> None:
        if not isinstance(state, dict):
            raise ModelFileError("an object with a state that is no dictionary")
        self.__dict__["attributes"] = state

    def get(self, name: str) -> tp.Any:
        """Return the attribute `name`, or raise `ModelFileError`."""
        attributes = self.__dict__.get("attributes", {})
        if name not in attributes:
            raise ModelFileError("{} without {!r}".format(type(self).__name__, name))
        return attributes[name]


class _NeuralNetwork(_Node):
    """`layers`: a list."""


class _BidirectionalLayer(_Node):
    """`fwd_layer`, `bwd_layer`."""


class _LSTMLayer(_Node):
    """Four gates."""


class _Gate(_Node):
    """`weights [F, H]`, `recurrent_weights [H, H]`, `bias [H]`, `peephole_weights [H] or None`."""


class _FeedForwardLayer(_Node):
    """`weights [F, O]`, `bias [O]`, `activation_fn`."""


class _Dtype:
    """Stands for `numpy.dtype`; the reader takes little-endian float32 and nothing else."""

    def __init__(self, name: str, *_: tp.Any) -> None:
        self.name, self.order = name, "?"

    def __setstate__(self, state: tp.Tuple[tp.Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands for `numpy.ndarray`; built by `_start_array` and filled by its state."""

    values = np.zeros(0, np.float32)

    def __setstate__(self, state: tp.Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Dtype) or (dtype.name, dtype.order) != ("f4", "<"):
            raise ModelFileError("an array that is not little-endian float32")
        # Python 2 wrote the bytes as a string, which comes back as latin-1 text.
        raw = data if isinstance(data, bytes) else data.encode("latin-1")
        flat = np.frombuffer(raw, np.dtype("<f4")).astype(np.float32)
        self.values = flat.reshape(shape, order="F" if is_fortran else "C")


def _start_array(*_: tp.Any) -> _Array:
    """Stand for `numpy.core.multiarray._reconstruct`, whose arguments say nothing yet."""
    return _Array()


_ALLOWED: tp.Dict[tp.Tuple[str, str], tp.Any] = {
    ("madmom.ml.nn", "NeuralNetwork"): _NeuralNetwork,
    ("madmom.ml.nn.layers", "BidirectionalLayer"): _BidirectionalLayer,
    ("madmom.ml.nn.layers", "LSTMLayer"): _LSTMLayer,
    ("madmom.ml.nn.layers", "Gate"): _Gate,
    ("madmom.ml.nn.layers", "Cell"): _Gate,
    ("madmom.ml.nn.layers", "FeedForwardLayer"): _FeedForwardLayer,
    ("madmom.ml.nn.activations", "sigmoid"): "sigmoid",
    ("madmom.ml.nn.activations", "softmax"): "softmax",
    ("madmom.ml.nn.activations", "tanh"): "tanh",
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _start_array,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names above and no others."""

    def find_class(self, module: str, name: str) -> tp.Any:
        if (module, name) not in _ALLOWED:
            raise ModelFileError("refused to load {}.{}".format(module, name))
        return _ALLOWED[module, name]


def read_network(path: str) -> LstmNetwork:
    """Return the network in the file at `path`.

    Raises:
        ModelFileError: the file names anything unknown, or is not a stack of bidirectional LSTM layers
            with peepholes under one dense layer. The message is one line with the path.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return _network(_Unpickler(io.BytesIO(data), encoding="latin1").load())
    except Exception as error:  # a corrupt pickle can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelFileError("{}: not a madmom LSTM network: {}".format(path, reason)) from error


def _take(node: tp.Any, kind: tp.Type[_Node]) -> _Node:
    if not isinstance(node, kind):
        raise ModelFileError("{} where {} belongs".format(type(node).__name__, kind.__name__))
    return node


def _values(node: _Node, name: str, *shape: int) -> np.ndarray:
    """Return an array attribute; -1 in `shape` takes any size."""
    array = node.get(name)
    if not isinstance(array, _Array):
        raise ModelFileError("{!r} is no array".format(name))
    found = array.values.shape
    if len(found) != len(shape) or any(want not in (-1, size) for want, size in zip(shape, found)):
        raise ModelFileError("{!r} has shape {}, expected {}".format(name, found, shape))
    return array.values


def _network(root: tp.Any) -> LstmNetwork:
    layers = _take(root, _NeuralNetwork).get("layers")
    if not isinstance(layers, list) or len(layers) < 2:
        raise ModelFileError("fewer than two layers")
    top = _take(layers[-1], _FeedForwardLayer)
    pairs = []
    inputs = -1
    for node in layers[:-1]:
        layer = _take(node, _BidirectionalLayer)
        forward = _direction(layer.get("fwd_layer"), inputs)
        backward = _direction(layer.get("bwd_layer"), forward.weights.shape[0])
        pairs.append((forward, backward))
        inputs = forward.bias.shape[1] + backward.bias.shape[1]
    weights = _values(top, "weights", inputs, -1)
    bias = _values(top, "bias", weights.shape[1])
    return LstmNetwork(tuple(pairs), weights, bias, _activation(top, "sigmoid", "softmax"))


def _activation(node: _Node, *known: str) -> str:
    name = node.get("activation_fn")
    if name not in known:
        raise ModelFileError("activation {!r} where {} is expected".format(name, " or ".join(known)))
    return tp.cast(str, name)


def _direction(node: tp.Any, inputs: int) -> Direction:
    layer = _take(node, _LSTMLayer)
    _activation(layer, "tanh")
    gates = [_take(layer.get(name), _Gate) for name in _GATES]
    for gate, activation in zip(gates, ("sigmoid", "sigmoid", "tanh", "sigmoid")):
        _activation(gate, activation)
    units = _values(gates[0], "bias", -1).shape[0]
    return Direction(
        weights=np.stack([_values(gate, "weights", inputs, units) for gate in gates], axis=1),
        recurrent=np.stack([_values(gate, "recurrent_weights", units, units) for gate in gates], axis=1),
        bias=np.stack([_values(gate, "bias", units) for gate in gates]),
        peepholes=np.stack([_values(gates[k], "peephole_weights", units) for k in (0, 1, 3)]),
    )
