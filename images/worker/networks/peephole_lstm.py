"""An ensemble of bidirectional LSTM networks with peephole connections, run side by side in numpy.

A recurrent network is bound by the overhead of its steps, not by its arithmetic. All N networks and both
directions therefore take each step together: one set of numpy calls instead of `2 * N`.

For one direction, with `*` elementwise and `x` the input (Gers, Schraudolph, Schmidhuber: Learning
Precise Timing with LSTM Recurrent Networks, JMLR 3, 2002, section 2)::

    i[t] = sigmoid(x[t] Wi + h[t-1] Ri + bi + c[t-1] * pi)
    f[t] = sigmoid(x[t] Wf + h[t-1] Rf + bf + c[t-1] * pf)
    c[t] = f[t] * c[t-1] + i[t] * tanh(x[t] Wc + h[t-1] Rc + bc)
    o[t] = sigmoid(x[t] Wo + h[t-1] Ro + bo + c[t] * po)
    h[t] = o[t] * tanh(c[t])

The arithmetic is float64, and costs hardly more since the overhead dominates. In float32 the rounding of one
numpy or another grows to 1e-3 in some passages, for trained networks can be ill-conditioned: madmom, in
float32, is that far from its own formula at times. What stays in memory between layers is float32.

Axes: N networks, T frames, S steps of a chunk, F inputs, H units, O outputs; the axis of size 2 is the
direction, that of size 4 the gate (input, forget, cell, output).
"""

import typing as tp

import numpy as np

CHUNK = 256  # steps whose input projections exist at a time


class Direction(tp.NamedTuple):
    """The weights of one direction of one layer, float32."""

    weights: np.ndarray  # [F, 4, H]
    recurrent: np.ndarray  # [H, 4, H]
    bias: np.ndarray  # [4, H]
    peepholes: np.ndarray  # [3, H]: input, forget, output


class LstmNetwork(tp.NamedTuple):
    """One network: bidirectional layers, and a dense layer on top."""

    layers: tp.Tuple[tp.Tuple[Direction, Direction], ...]  # forward, backward
    weights: np.ndarray  # float32 [2H, O]
    bias: np.ndarray  # float32 [O]
    activation: str  # sigmoid | softmax


class _Layer(tp.NamedTuple):
    """One layer of all networks, float64; the weights of the three sigmoid gates are halved."""

    weights: np.ndarray  # [2, N, F, 4H]
    recurrent: np.ndarray  # [2, N, H, 4H]
    bias: np.ndarray  # [2, N, 1, 4H]
    state_peepholes: np.ndarray  # [2, N, 2, H]: input and forget, which see c[t-1]
    output_peepholes: np.ndarray  # [2, N, H], which see c[t]


class Ensemble:
    """The average of the predictions of several networks of one shape."""

    def __init__(self, networks: tp.Sequence[LstmNetwork]) -> None:
        """Arrange the weights of `networks`, which agree in every shape and in their activation."""
        depths = {len(network.layers) for network in networks}
        self._activation = networks[0].activation
        if len(depths) > 1 or any(network.activation != self._activation for network in networks):
            raise ValueError("the networks of an ensemble must have the same layers and activation")
        self._layers = [_pack([network.layers[k] for network in networks]) for k in range(depths.pop())]
        self._weights = np.stack([network.weights for network in networks]).astype(np.float64)
        self._bias = np.stack([network.bias for network in networks])[:, None].astype(np.float64)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the mean activation float32 `[T, O]` of an item `[T, F]`, T > 0."""
        hidden = features[None]
        for layer in self._layers:
            hidden = _run(layer, hidden)
        return self._predict(hidden)

    def _predict(self, hidden: np.ndarray) -> np.ndarray:
        """Return the averaged predictions float32 `[T, O]` from `hidden` `[N, T, 2H]`."""
        frames = hidden.shape[1]
        mean = np.empty((frames, self._bias.shape[2]), np.float32)
        for start in range(0, frames, CHUNK):
            logits = np.matmul(hidden[:, start : start + CHUNK], self._weights) + self._bias
            mean[start : start + CHUNK] = _activate(logits, self._activation).mean(axis=0)
        return mean


def _activate(logits: np.ndarray, activation: str) -> np.ndarray:
    """Return probabilities `[..., O]`; tanh and the shift by the maximum keep them from overflowing."""
    if activation == "sigmoid":
        probabilities: np.ndarray = 0.5 * np.tanh(0.5 * logits) + 0.5
        return probabilities
    if activation != "softmax":
        raise ValueError("unknown activation {!r}; known: sigmoid, softmax".format(activation))
    powers: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def _pack(layers: tp.Sequence[tp.Tuple[Direction, Direction]]) -> _Layer:
    """Return one layer of all networks with the direction first.

    Halving is exact in floating point, and turns sigmoid(x) = (1 + tanh(x / 2)) / 2 into a tanh that the
    three inner gates share.
    """
    halves = np.array([0.5, 0.5, 1.0, 0.5])[:, None]

    def stack(pick: tp.Callable[[Direction], np.ndarray], *shape: int) -> np.ndarray:
        both = [np.stack([pick(layer[side]) for layer in layers]) for side in (0, 1)]
        packed = np.stack(both).astype(np.float64)
        return np.ascontiguousarray(packed.reshape(packed.shape[:2] + shape))

    inputs, _, units = layers[0][0].weights.shape
    return _Layer(
        weights=stack(lambda d: d.weights * halves, inputs, 4 * units),
        recurrent=stack(lambda d: d.recurrent * halves, units, 4 * units),
        bias=stack(lambda d: d.bias * halves, 1, 4 * units),
        state_peepholes=stack(lambda d: d.peepholes[:2] * 0.5, 2, units),
        output_peepholes=stack(lambda d: d.peepholes[2] * 0.5, units),
    )


def _run(layer: _Layer, inputs: np.ndarray) -> np.ndarray:
    """Return the hidden states float32 `[N, T, 2H]`, forward then backward, of inputs `[1 or N, T, F]`."""
    _, networks, units, _ = layer.recurrent.shape
    frames = inputs.shape[1]
    output = np.empty((networks, frames, 2 * units), np.float32)
    last, cell = np.zeros((2, 2, networks, units))
    for start in range(0, frames, CHUNK):
        ahead = slice(start, min(start + CHUNK, frames))
        behind = slice(frames - ahead.stop, frames - start)  # of the direction that begins with the last frame
        forward = np.matmul(inputs[:, ahead].astype(np.float64), layer.weights[0]) + layer.bias[0]
        backward = np.matmul(inputs[:, behind].astype(np.float64), layer.weights[1]) + layer.bias[1]
        projected = np.stack([forward, backward[:, ::-1]]).transpose(2, 0, 1, 3)
        hidden = _advance(layer, np.ascontiguousarray(projected), last, cell)
        last = hidden[-1]
        output[:, ahead, :units] = hidden[:, 0].transpose(1, 0, 2)
        output[:, behind, units:] = hidden[::-1, 1].transpose(1, 0, 2)
    return output


def _advance(layer: _Layer, projected: np.ndarray, last: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return the hidden states `[S, 2, N, H]` after each step of `projected` `[S, 2, N, 4H]`, the inputs with bias.

    `last` `[2, N, H]` is the hidden state before the first step; `cell`, of the same shape, is updated in place.
    Every call costs more than its arithmetic here, hence the buffers and views made before the loop.
    """
    hidden = np.empty((len(projected), *cell.shape))
    gates = np.empty((*cell.shape[:-1], 4, cell.shape[-1]))
    flat = gates.reshape((*cell.shape[:-1], 1, -1))
    inner, outer, inputs = gates[..., :3, :], gates[..., :2, :], gates[..., 0, :]
    forgets, candidates, outputs = gates[..., 1, :], gates[..., 2, :], gates[..., 3, :]
    peeps, seen, states = np.empty_like(outer), np.empty_like(cell), cell[..., None, :]
    for step, drive in enumerate(projected):
        np.matmul(last[..., None, :], layer.recurrent, out=flat)
        flat += drive[..., None, :]
        outer += np.multiply(states, layer.state_peepholes, out=peeps)
        np.tanh(inner, out=inner)
        outer *= 0.5
        outer += 0.5
        cell *= forgets
        cell += np.multiply(inputs, candidates, out=seen)
        outputs += np.multiply(cell, layer.output_peepholes, out=seen)
        np.tanh(outputs, out=outputs)
        outputs *= 0.5
        outputs += 0.5
        last = np.multiply(np.tanh(cell, out=seen), outputs, out=hidden[step])
    return hidden
