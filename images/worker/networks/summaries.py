"""One vector per item from what CREPE and madmom say frame by frame, for a classifier.

Every value is finite: where nothing was found, as in silence, it is 0.
"""

import typing as tp

import numpy as np

CONFIDENT = 0.5  # of a frame, from here on
OCTAVES = 6  # from C1 on, the range of CREPE
PITCH = ("median pitch in Hz", "its spread in cents", "share of confident frames", "shares of octaves 1 to 6")
BEATS = (
    "tempo in beats per minute", "spread of the tempo", "beats", "strength of beats", "share of downbeats",
    "strength of downbeats",
)  # fmt: skip
PITCH_SIZE, BEATS_SIZE = len(PITCH) - 1 + OCTAVES, len(BEATS)

_LOWEST_C = 440 * 2 ** (-45 / 12)  # Hz, C1


def summarize_pitch(pitch: np.ndarray) -> np.ndarray:
    """Return the values that `PITCH` names, float32 [9], of Hz and confidence [T, 2], T >= 1.

    ::

        median f, 1200 log2(q75 / q25), n / T,  and of each octave k = 1 .. 6 the share of frames with
        floor(log2(f / 32.70 Hz)) = k - 1, those beyond counted to the first and the last

    over the n frames whose confidence is 0.5 or more; f their pitch, q25 and q75 its quartiles.
    """
    frequency, confidence = pitch.astype(np.float64).T
    voiced = frequency[(confidence >= CONFIDENT) & (frequency > 0)]
    if not len(voiced):
        return np.zeros(PITCH_SIZE, np.float32)
    low, median, high = np.percentile(voiced, (25, 50, 75))
    octaves = np.clip(np.floor(np.log2(voiced / _LOWEST_C)), 0, OCTAVES - 1).astype(np.int64)
    shares = np.bincount(octaves, minlength=OCTAVES) / len(voiced)
    values = [median, 1200 * np.log2(high / low), len(voiced) / len(pitch), *shares]
    return np.array(values, np.float32)


def summarize_beats(beats: np.ndarray, activation: np.ndarray, frame_rate: float) -> np.ndarray:
    """Return the values that `BEATS` names, float32 [6].

    ::

        60 / mean d, (q75 - q25) / median d, N, mean of a + b, D / N, mean of b at the downbeats

    with d the seconds from beat to beat, q25 and q75 their quartiles, N the beats and D the downbeats among
    them, a and b both columns of the activation in a beat's frame. Both of the tempo are 0 for less than two beats.

    Args:
        beats: seconds, and number in the bar [N, 2].
        activation: probabilities of a beat that is no downbeat, and of a downbeat [T, 2].
        frame_rate: of the activation, per second.
    """
    values: tp.List[float] = [0.0] * BEATS_SIZE
    if len(beats) > 1:
        seconds = np.diff(beats[:, 0].astype(np.float64))
        low, median, high = np.percentile(seconds, (25, 50, 75))
        values[:2] = [60 / seconds.mean(), (high - low) / median]  # the mean: single ones are whole frames
    if len(beats):
        there = activation[np.rint(beats[:, 0] * frame_rate).astype(np.int64)].astype(np.float64)
        down = beats[:, 1] == 1
        strength = there[down, 1].mean() if down.any() else 0.0
        values[2:] = [len(beats), there.sum(axis=1).mean(), down.mean(), strength]
    return np.array(values, np.float32)
