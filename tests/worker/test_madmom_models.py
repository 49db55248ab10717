"""Reading madmom's pickles: the real layout is understood, everything else is refused by its name."""

import pickle
import pickletools
import sys
import types
import typing as tp
from pathlib import Path

import numpy as np
import pytest

from worker.networks.madmom_models import ModelFileError, read_network

CLASSES = {
    "madmom.ml.nn": ("NeuralNetwork",),
    "madmom.ml.nn.layers": (
        "BidirectionalLayer",
        "LSTMLayer",
        "Gate",
        "Cell",
        "FeedForwardLayer",
        "GRULayer",
    ),
    "madmom.ml.nn.activations": ("sigmoid", "softmax", "tanh"),
}
GATES = ("input_gate", "forget_gate", "cell", "output_gate")
INPUTS, UNITS = 6, 4

Make = tp.Callable[..., tp.Any]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes objects whose pickles name madmom's classes."""
    made: tp.Dict[str, tp.Any] = {}
    for module in ("madmom", "madmom.ml", *CLASSES):
        fake = types.ModuleType(module)
        for name in CLASSES.get(module, ()):
            made[name] = type(name, (), {"__module__": module})
            setattr(fake, name, made[name])
        monkeypatch.setitem(sys.modules, module, fake)

    def build(name: str, **attributes: tp.Any) -> tp.Any:
        thing = made[name]
        if not attributes:
            return thing
        thing = thing()
        thing.__dict__.update(attributes)
        return thing

    return build


def array(*shape: int) -> np.ndarray:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return np.asfortranarray(values * np.float32(0.01))


def lstm(make: Make, inputs: int) -> tp.Any:
    gates = {
        name: make(
            "Cell" if name == "cell" else "Gate",
            weights=array(inputs, UNITS) + np.float32(number),
            recurrent_weights=array(UNITS, UNITS) - np.float32(number),
            bias=array(UNITS) * np.float32(number),
            peephole_weights=None if name == "cell" else array(UNITS) + np.float32(number),
            activation_fn=make("tanh" if name == "cell" else "sigmoid"),
        )
        for number, name in enumerate(GATES)
    }
    return make("LSTMLayer", activation_fn=make("tanh"), **gates)


def network(make: Make) -> tp.Any:
    first, second = (
        make("BidirectionalLayer", fwd_layer=lstm(make, size), bwd_layer=lstm(make, size))
        for size in (INPUTS, 2 * UNITS)
    )
    top = make("FeedForwardLayer", weights=array(2 * UNITS, 3), bias=array(3), activation_fn=make("softmax"))
    return make("NeuralNetwork", layers=[first, second, top])


def dump(thing: tp.Any) -> bytes:
    """Pickle as Python 2 and an old numpy did: bytes are strings, and numpy's private module is public."""
    data = bytearray(pickle.dumps(thing, protocol=3))
    for opcode, _, position in pickletools.genops(bytes(data)):
        if opcode.name in ("BINBYTES", "SHORT_BINBYTES") and position is not None:
            data[position : position + 1] = b"T" if opcode.name == "BINBYTES" else b"U"
    return bytes(data).replace(b"cnumpy._core.", b"cnumpy.core.")


def write(folder: Path, data: bytes) -> str:
    path = folder / "model.pkl"
    path.write_bytes(data)
    return str(path)


def test_a_network_is_read(tmp_path: Path, make: Make) -> None:
    found = read_network(write(tmp_path, dump(network(make))))
    assert found.activation == "softmax"
    assert len(found.layers) == 2
    np.testing.assert_array_equal(found.weights, array(2 * UNITS, 3))
    for inputs, pair in zip((INPUTS, 2 * UNITS), found.layers):
        for direction in pair:
            for gate in range(4):
                np.testing.assert_array_equal(direction.weights[:, gate], array(inputs, UNITS) + gate)
                np.testing.assert_array_equal(direction.recurrent[:, gate], array(UNITS, UNITS) - gate)
                np.testing.assert_array_equal(direction.bias[gate], array(UNITS) * np.float32(gate))
            for row, gate in enumerate((0, 1, 3)):
                np.testing.assert_array_equal(direction.peepholes[row], array(UNITS) + np.float32(gate))


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("subprocess", "Popen"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "scalar"),
        ("madmom.ml.nn.layers", "GRULayer"),
        ("madmom.ml.nn.layers", "Gate.__init__"),
        ("worker.networks.madmom_models", "read_network"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, module: str, name: str) -> None:
    witness = tmp_path / "witness"
    argument = "open({!r}, 'w')".format(str(witness)).replace("'", "\\'")
    if name == "system":
        argument = "touch {}".format(witness)
    path = write(tmp_path, "c{}\n{}\n(S'{}'\ntR.".format(module, name, argument).encode())
    with pytest.raises(ModelFileError) as caught:
        read_network(path)
    assert "refused to load {}.{}".format(module, name) in str(caught.value)
    assert path in str(caught.value)
    assert not witness.exists()


def _double(root: tp.Any) -> None:
    root.layers[0].fwd_layer.cell.weights = np.zeros((INPUTS, UNITS))


def _unknown_activation(root: tp.Any) -> None:
    root.layers[-1].activation_fn = root.layers[0].fwd_layer.activation_fn


def _other_shape(root: tp.Any) -> None:
    root.layers[1].bwd_layer.forget_gate.recurrent_weights = array(UNITS, UNITS + 1)


def _no_peephole(root: tp.Any) -> None:
    root.layers[0].bwd_layer.output_gate.peephole_weights = None


def _missing_gate(root: tp.Any) -> None:
    del root.layers[0].fwd_layer.input_gate


def _no_dense_layer(root: tp.Any) -> None:
    root.layers.pop()


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (_double, "little-endian float32"),
        (_unknown_activation, "sigmoid or softmax"),
        (_other_shape, "shape"),
        (_no_peephole, "peephole_weights"),
        (_missing_gate, "input_gate"),
        (_no_dense_layer, "_FeedForwardLayer belongs"),
    ],
)
def test_another_network_is_refused(
    tmp_path: Path, make: Make, spoil: tp.Callable[[tp.Any], None], reason: str
) -> None:
    root = network(make)
    spoil(root)
    with pytest.raises(ModelFileError, match=reason):
        read_network(write(tmp_path, dump(root)))


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_cut_file_is_refused_in_one_line(tmp_path: Path, make: Make, keep: int) -> None:
    path = write(tmp_path, dump(network(make))[:keep])
    with pytest.raises(ModelFileError) as caught:
        read_network(path)
    assert str(caught.value).startswith(path + ": ")
    assert "\n" not in str(caught.value)
