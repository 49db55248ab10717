"""From activations of beats and downbeats to beats: the most likely walk through bars of three or four beats.

Dynamic Bayesian network: Boeck, Krebs, Widmer, "Joint Beat and Downbeat Tracking with Recurrent Neural
Networks", ISMIR 2016, section 2.3; its states: Krebs, Boeck, Widmer, "An Efficient State Space Model for Joint
Tempo and Meter Tracking", ISMIR 2015. Constants, ties and rounding as in madmom 0.16.1.

A state is a beat of a bar, the interval from it to the next one in frames, and a position in that interval::

    beat 1                    beat 2                     frames 0, 1, 2 ... of each interval; a step a frame;
    [0 1 2 ... 27]            [0 1 2 ... 27]             at the end of a beat the next one begins, with an
    [0 1 2 ... 28]    --->    [0 1 2 ... 28]    --->     interval i' in the place of i by the probability
    ...                       ...                        exp(-100 |i' / i - 1|), scaled to a sum of 1
    [0 1 2 ........ 109]      [0 1 2 ........ 109]

The first sixteenth of an interval is heard as a beat, or as a downbeat in the first of the bar; each of the
other fifteen as (1 - beat - downbeat) / 15. All states may be the first. Bars of three and of four are two
networks, of which the likelier one counts; they step side by side.

Axes: T frames, B = 7 beats of both bars, I intervals, S states of a beat, W intervals that may lead to one.
"""

import functools
import typing as tp

import numpy as np

FRAME_RATE = 100  # per second
BARS = (3, 4)  # beats

_SLOWEST, _FASTEST = 55.0, 215.0  # beats per minute
_INTERVALS = 60  # how many are told apart
_STEADY = 100.0  # the higher, the rarer are changes of tempo
_PARTS = 16  # of an interval
_THRESHOLD = 0.05  # before the first and behind the last frame with an activation this high there are no beats

_BEFORE = np.array([2, 0, 1, 6, 3, 4, 5])  # [B], the beat before each
_NUMBER = np.array([1, 2, 3, 1, 2, 3, 4])  # [B], in its bar
_Part = tp.Tuple[int, int, int, int]  # of the walk: beat, interval, first frame, frame behind those that are heard


class _Model(tp.NamedTuple):
    """Both networks; a state's index is `beat * S + first[interval] + position`."""

    intervals: np.ndarray  # int64 [I], frames
    first: np.ndarray  # int64 [I]
    heard: np.ndarray  # int64 [B, I], positions that are heard as a beat
    sources: np.ndarray  # int64 [I, W], of each interval
    changes: np.ndarray  # float64 [I, W], log probabilities from those sources


def find_beats(activation: np.ndarray) -> np.ndarray:
    """Return the beats: seconds, and the number in the bar, from 1, which is a downbeat; float32 [N, 2].

    Args:
        activation: probabilities of a beat that is no downbeat, and of a downbeat; float32 [T, 2], 100 frames a second.
    """
    loud = np.nonzero(activation >= _THRESHOLD)[0]
    if not loud.any():  # nothing, or the first frame alone
        return np.zeros((0, 2), np.float32)
    begin = loud.min()
    inner = activation[begin : loud.max() + 1]
    beats = []
    for beat, _, start, stop in _walk(inner):
        # A walk may begin in the middle of an interval, and end before a beat was heard to its end.
        span = inner[max(start, 0) : max(stop, 0)]
        if len(span):
            peak = max(start, 0) + int(span.max(axis=1).argmax())
            beats.append(((begin + peak) / FRAME_RATE, _NUMBER[beat]))
    return np.array(beats, np.float32).reshape(-1, 2)


def _walk(activation: np.ndarray) -> tp.List[_Part]:
    """Return the most likely walk, beat by beat; empty where none is possible."""
    model = _model()
    moves, end = _score(model, _densities(activation))
    size = model.intervals.sum()
    bars = np.split(end, [BARS[0] * size])
    best = [bar.max() for bar in bars]
    if max(best) == -np.inf:
        return []
    likelier = int(np.argmax(best))
    state = int(bars[likelier].argmax()) + likelier * BARS[0] * size
    beat, inside = divmod(state, size)
    interval = int(np.searchsorted(model.first, inside, "right")) - 1
    start = len(activation) - 1 - (inside - int(model.first[interval]))
    walk = [_part(model, beat, interval, start)]
    while start > 0:
        interval = int(model.sources[interval, moves[start, beat, interval]])
        beat = int(_BEFORE[beat])
        start -= int(model.intervals[interval])
        walk.append(_part(model, beat, interval, start))
    return walk[::-1]


def _part(model: _Model, beat: int, interval: int, start: int) -> _Part:
    return beat, interval, start, start + int(model.heard[beat, interval])


def _score(model: _Model, densities: np.ndarray) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return which source each beat began from at each frame, int8 [T, B, I], and the last likelihoods [B * S].

    Viterbi's algorithm. Inside an interval there is one way on, so those states are moved as a whole, and only
    a beat's first states remember where they came from.
    """
    size, beats = int(model.intervals.sum()), len(_BEFORE)
    first = np.arange(beats)[:, None] * size + model.first  # [B, I]
    last = (first + model.intervals - 1)[_BEFORE]  # of the beat before
    origins = last[:, model.sources]  # [B, I, W]
    kinds = np.where(_NUMBER == 1, 2, 1)  # columns of the densities
    inside = [first[b, i] + np.arange(1, model.heard[b, i]) for b in range(beats) for i in range(len(model.first))]
    heard = np.concatenate(inside)
    heard_kinds = kinds[heard // size]
    states = np.array(BARS) * size
    likelihood = np.repeat(-np.log(states.astype(np.float64)), states)
    following, scores = np.empty_like(likelihood), np.empty(origins.shape)
    best = np.empty(first.shape, np.intp)
    rows = np.arange(best.size).reshape(best.shape) * scores.shape[2]
    moves = np.empty((len(densities),) + first.shape, np.int8)
    for time, density in enumerate(densities):
        likelihood.take(origins, out=scores, mode="clip")
        scores += model.changes
        scores.argmax(axis=2, out=best)
        np.add(likelihood[:-1], density[0], out=following[1:])
        following[heard] = likelihood[heard - 1] + density[heard_kinds]
        following[first] = scores.take(rows + best) + density[kinds][:, None]
        moves[time] = best
        likelihood, following = following, likelihood
    return moves, likelihood


def _densities(activation: np.ndarray) -> np.ndarray:
    """Return log densities of no beat, beat and downbeat, float64 [T, 3], rounded to float32 as madmom does."""
    with np.errstate(divide="ignore"):  # an activation may be 0, or the sum of both 1
        silent = np.log(np.maximum(1 - activation.sum(axis=1), 0) / (_PARTS - 1))
        return np.column_stack([silent, np.log(activation)]).astype(np.float64)


@functools.lru_cache(maxsize=1)
def _model() -> _Model:
    intervals = _intervals()
    first = np.cumsum(intervals) - intervals
    positions = [np.linspace(0, 1, length, endpoint=False) for length in intervals]
    # The number of the beat is added, and taken off again, for the sake of the same rounding.
    heard = [[((inside + number - 1) % 1 < 1 / _PARTS).sum() for inside in positions] for number in _NUMBER]
    return _Model(intervals, first, np.array(heard), *_changes(intervals))


def _intervals() -> np.ndarray:
    """Return 60 or more different whole numbers of frames, spaced as evenly by their logarithm as that allows."""
    low, high = np.log2(60 * FRAME_RATE / _FASTEST), np.log2(60 * FRAME_RATE / _SLOWEST)
    count, found = _INTERVALS, np.zeros(0)
    while len(found) < _INTERVALS:
        found = np.unique(np.round(np.logspace(low, high, count, base=2)))
        count += 1
    return found.astype(np.int64)


def _changes(intervals: np.ndarray) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return for each interval those that may lead to it, ascending and filled up, and their log probabilities."""
    probability = np.exp(-_STEADY * abs(intervals / intervals[:, None].astype(np.float64) - 1))  # [from, to]
    probability[probability <= np.spacing(1)] = 0
    probability /= probability.sum(axis=1)[:, None]
    possible = probability.T > 0
    width = possible.sum(axis=1).max()
    sources = np.argsort(~possible, axis=1, kind="stable")[:, :width]
    with np.errstate(divide="ignore"):
        return sources, np.log(np.take_along_axis(probability.T, sources, 1))
