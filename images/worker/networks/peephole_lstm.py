"""An ensemble of bidirectional LSTM networks with peephole connections, run side by side in numpy.

A recurrent network is bound by the overhead of its steps, not by its arithmetic. All N networks, both
directions and all items therefore take each step together: one set of numpy calls instead of `2 * N * B`.

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

Axes: N networks, B items, T frames, S steps of a chunk, F inputs, H units, O outputs; the axis of size 2
is the direction, that of size 4 the gate (input, forget, cell, output).
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

    def __call__(self, features: tp.Sequence[np.ndarray]) -> tp.List[np.ndarray]:
        """Return the mean activation float32 `[T, O]` of every item `[T, F]`; T > 0 may differ.

        The bytes of an item do not depend on the items beside it: every matrix product has the shape that
        it has when the item is alone, and what remains is elementwise.
        """
        items = [item[None] for item in features]
        for layer in self._layers:
            items = _run(layer, items)
        return [self._predict(item) for item in items]

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


def _run(layer: _Layer, items: tp.Sequence[np.ndarray]) -> tp.List[np.ndarray]:
    """Return the hidden states float32 `[N, T, 2H]`, forward then backward, of items `[1 or N, T, F]`.

    All items begin at step 0, backward ones with their last frame. A shorter item goes on with whatever
    was there before, unread, so no padding ever enters it.
    """
    _, networks, units, _ = layer.recurrent.shape
    count, longest = len(items), max(item.shape[1] for item in items)
    outputs = [np.empty((networks, item.shape[1], 2 * units), np.float32) for item in items]
    size = min(CHUNK, longest)
    projected = np.zeros((size, count, 2, networks, 4 * units))
    hidden = np.zeros((size, count, 2, networks, units))
    cell = np.zeros((count, 2, networks, units))
    last = np.zeros((count, 2, networks, units))
    for start in range(0, longest, size):
        steps = min(size, longest - start)
        for index, item in enumerate(items):
            _project(layer, item, start, projected[:, index])
        _advance(layer, projected[:steps], last, cell, hidden)
        last[...] = hidden[steps - 1]
        for index, output in enumerate(outputs):
            _collect(hidden[:, index], start, output)
    return outputs


def _spans(start: int, size: int, frames: int) -> tp.Tuple[int, slice, slice]:
    """Return how many of `size` steps from `start` the item has, and their frames forward and backward."""
    steps = max(0, min(size, frames - start))
    return steps, slice(start, start + steps), slice(frames - start - steps, frames - start)


def _project(layer: _Layer, item: np.ndarray, start: int, projected: np.ndarray) -> None:
    """Fill `projected` `[S, 2, N, 4H]` with the inputs of the steps from `start` on."""
    steps, ahead, behind = _spans(start, len(projected), item.shape[1])
    if steps:
        forward = np.matmul(item[:, ahead].astype(np.float64), layer.weights[0]) + layer.bias[0]
        backward = np.matmul(item[:, behind].astype(np.float64), layer.weights[1]) + layer.bias[1]
        projected[:steps, 0] = forward.transpose(1, 0, 2)
        projected[:steps, 1] = backward[:, ::-1].transpose(1, 0, 2)


def _collect(hidden: np.ndarray, start: int, output: np.ndarray) -> None:
    """Write `hidden` `[S, 2, N, H]` of the steps from `start` on to their frames of `[N, T, 2H]`."""
    units = hidden.shape[-1]
    steps, ahead, behind = _spans(start, len(hidden), output.shape[1])
    output[:, ahead, :units] = hidden[:steps, 0].transpose(1, 0, 2)
    output[:, behind, units:] = hidden[:steps, 1][::-1].transpose(1, 0, 2)


def _advance(
    layer: _Layer,
    projected: np.ndarray,
    last: np.ndarray,
    cell: np.ndarray,
    hidden: np.ndarray,
) -> None:
    """Take the steps of `projected` `[S, B, 2, N, 4H]`.

    Every call costs more than its arithmetic here, hence the buffers and views made before the loop.

    Args:
        layer: the weights.
        projected: input projections with bias, float64 like the states.
        last: `[B, 2, N, H]`, the hidden state before the first step.
        cell: `[B, 2, N, H]`, the cell state; updated in place.
        hidden: `[>= S, B, 2, N, H]`; receives the hidden state after each step.
    """
    gates = np.empty((*cell.shape[:-1], 4, cell.shape[-1]))
    flat = gates.reshape((*cell.shape[:-1], 1, -1))
    inner, outer, inputs = gates[..., :3, :], gates[..., :2, :], gates[..., 0, :]
    forgets, candidates, outputs = gates[..., 1, :], gates[..., 2, :], gates[..., 3, :]
    peeps, seen, states = np.empty_like(outer), np.empty_like(cell), cell[..., None, :]
    for step, drive in enumerate(projected):
        # One row times a matrix per (item, network): never a taller product, whose sums would round
        # differently with the number of items.
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
