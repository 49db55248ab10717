import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.extractor import Extractor, Windows
from worker.work import extraction, windows


def ramp(samples, channels=1):
    """Return `[C, T]` in which every sample is another number, and none is zero."""
    return 1 + np.arange(channels * samples, dtype=np.float32).reshape(channels, samples)


def bounce(position, samples):
    """Return where a position outside the audio ends up between two mirrors."""
    while not 0 <= position < samples:
        position = -position if position < 0 else 2 * (samples - 1) - position
        if samples == 1:
            return 0
    return position


def extend(wave, framing):
    """Return the audio with its two paddings, sample by sample."""
    samples = wave.shape[1]
    columns = []
    for position in range(-framing.left, samples + framing.right):
        how = framing.pad_start if position < 0 else framing.pad_end
        if 0 <= position < samples or how == "reflect":
            columns.append(wave[:, bounce(position, samples)])
        else:
            columns.append(np.zeros(len(wave), np.float32))
    return np.stack(columns, axis=1)


def naive_frames(wave, framing):
    """Return all frames `[T, C, size]` without any windows: `step` apart, as long as they fit."""
    size, step = framing.frame_length or framing.window, framing.frame_hop or framing.hop
    shortest = size - framing.left - framing.right
    if wave.shape[1] < shortest and framing.short == "repeat":
        wave = np.concatenate([wave] * shortest, axis=1)[:, :shortest]
    elif wave.shape[1] < shortest:
        wave = np.pad(wave, ((0, 0), (0, shortest - wave.shape[1])), "constant")
    whole = extend(wave, framing)
    if framing.tail == "pad":
        while (whole.shape[1] - size) % step or whole.shape[1] < size:
            whole = np.pad(whole, ((0, 0), (0, 1)), "constant")
    return np.stack([whole[:, at : at + size] for at in range(0, whole.shape[1] - size + 1, step)])


class Echo(Extractor):
    """A model that gives its frames unchanged, and looks at what it is shown."""

    environment = "legacy-py37"
    sample_rate = 8000

    def __init__(self, framing, channels, batch_size):
        self.windows, self.shape = framing, (batch_size, channels, framing.window)

    def outputs(self):
        return ()

    def framing(self):
        return self.windows

    def load(self, device, files):
        pass

    def extract(self, batch):
        assert batch.wave.shape == self.shape
        assert batch.wave.dtype == np.float32
        assert len(batch.lengths) == len(batch.starts) == self.shape[0]
        for wave, length in zip(batch.wave, batch.lengths):
            assert not wave[:, length:].any()
        framing = self.windows
        size, step = framing.frame_length or framing.window, framing.frame_hop or framing.hop
        full = range(framing.frames(framing.window))
        frames = np.stack([batch.wave[:, :, n * step : n * step + size] for n in full], axis=1)
        return {"frames": frames, "first": frames[..., 0, 0]}


def run(wave, framing, batch_size):
    """Return what a model gives of all windows."""
    model = Echo(framing, len(wave), batch_size)
    return extraction.extract(model, wave, batch_size, ".", threading.Event())[0]


@st.composite
def framings(draw):
    """Windows that hold one frame, or a few in a row without a gap between windows."""
    size = draw(st.integers(1, 12))
    tail = draw(st.sampled_from(["drop", "pad"]))
    step = draw(st.integers(1, size if tail == "pad" else size + 3))
    padding = st.sampled_from(["zero", "reflect"])
    settings = {
        "left": draw(st.integers(0, 15)),
        "right": draw(st.integers(0, 15)),
        "pad_start": draw(padding),
        "pad_end": draw(padding),
        "tail": tail,
        "short": draw(st.sampled_from(["zero", "repeat"])),
    }
    if draw(st.booleans()):
        return Windows(size, step, **settings)
    count, rest = draw(st.integers(1, 4)), draw(st.integers(0, step - 1))
    return Windows(size + (count - 1) * step + rest, count * step, frame_length=size, frame_hop=step, **settings)


@given(framings(), st.integers(1, 60), st.integers(1, 2), st.integers(1, 5))
def test_every_frame_comes_once_and_in_order_whatever_the_batch(framing, samples, channels, batch_size):
    wave = ramp(samples, channels)
    cut = windows.cut(wave, framing)
    expected = naive_frames(wave, framing)
    assert sum(cut.frames) == len(expected)
    np.testing.assert_array_equal(run(wave, framing, batch_size)["frames"], expected)


@given(framings(), st.integers(1, 60))
def test_windows_say_where_they_begin_and_how_much_of_them_counts(framing, samples):
    cut = windows.cut(ramp(samples), framing)
    total = framing.left + cut.wave.shape[1] + framing.right
    for n, (start, length) in enumerate(zip(cut.starts, cut.lengths)):
        assert start == n * framing.hop - framing.left
        assert (framing.frame_length or framing.window) <= length <= framing.window
        if framing.tail == "drop":
            assert length == min(framing.window, total - n * framing.hop)


@given(st.integers(1, 20), st.integers(0, 50), st.integers(0, 50))
def test_reflection_is_numpys(samples, left, right):
    wave = ramp(samples, 2)
    size = left + samples + right
    cut = windows.cut(wave, Windows(size, size, left, right, "reflect", "reflect"))
    ((batch, counts),) = windows.batches(cut, 1)
    np.testing.assert_array_equal(batch.wave[0], np.pad(wave, ((0, 0), (left, right)), "reflect"))
    assert counts == [1]
    assert not cut.padded


def test_each_end_has_its_own_padding():
    ((batch, _),) = windows.batches(windows.cut(ramp(3), Windows(7, 7, 2, 2, "zero", "reflect")), 1)
    assert batch.wave[0, 0].tolist() == [0, 0, 1, 2, 3, 2, 1]
    ((batch, _),) = windows.batches(windows.cut(ramp(3), Windows(7, 7, 2, 2, "reflect", "zero")), 1)
    assert batch.wave[0, 0].tolist() == [3, 2, 1, 2, 3, 0, 0]


@pytest.mark.parametrize(
    "short,samples,expected,padded",
    [
        ("repeat", 2, [1, 2, 1, 2, 1], True),
        ("zero", 2, [1, 2, 0, 0, 0], True),
        ("repeat", 1, [1, 1, 1, 1, 1], True),
        ("zero", 5, [1, 2, 3, 4, 5], False),
        ("repeat", 5, [1, 2, 3, 4, 5], False),
    ],
)
def test_audio_shorter_than_a_frame_is_lengthened_and_says_so(short, samples, expected, padded):
    cut = windows.cut(ramp(samples), Windows(5, 2, short=short))
    ((batch, counts),) = windows.batches(cut, 1)
    assert batch.wave[0, 0].tolist() == expected
    assert cut.padded is padded
    assert (counts, batch.lengths.tolist()) == ([1], [5])


def test_padding_at_the_ends_counts_before_audio_is_too_short():
    framing = Windows(5, 2, left=2, right=2)
    assert not windows.cut(ramp(1), framing).padded
    assert windows.cut(ramp(1), Windows(5, 2, left=2, right=1)).padded


def test_last_batch_is_filled_with_silent_windows_of_no_frames():
    parts = list(windows.batches(windows.cut(ramp(10), Windows(4, 2)), 3))
    assert [counts for _, counts in parts] == [[1, 1, 1], [1]]
    last = parts[-1][0]
    assert last.lengths.tolist() == [4, 0, 0]
    assert last.wave[0, 0].tolist() == [7, 8, 9, 10]
    assert not last.wave[1:].any()


def test_tail_is_dropped_or_kept():
    assert len(windows.cut(ramp(11), Windows(4, 4)).frames) == 2
    kept = windows.cut(ramp(11), Windows(4, 4, tail="pad"))
    assert kept.frames == [1, 1, 1]
    assert next(windows.batches(kept, 3))[0].wave[2, 0].tolist() == [9, 10, 11, 0]


def test_kept_tail_may_need_a_window_of_its_own():
    framing = Windows(10, 8, frame_length=4, frame_hop=4, tail="pad")  # two samples of a window fill no frame
    assert [windows.cut(ramp(samples), framing).frames for samples in (8, 9, 10, 13)] == [[2], [2, 1], [2, 1], [2, 2]]


def test_read_only_audio_is_not_touched():
    wave = ramp(20)
    wave.flags.writeable = False
    before = wave.copy()
    for batch, _ in windows.batches(windows.cut(wave, Windows(6, 3, 2, 2, "reflect", "reflect")), 2):
        batch.wave[:] = 0
    np.testing.assert_array_equal(wave, before)


def test_outputs_of_any_rank_are_joined():
    joined = run(ramp(10), Windows(4, 4, frame_length=2, frame_hop=2), 2)
    assert joined["first"].tolist() == [1, 3, 5, 7, 9]
    assert joined["frames"].tolist() == [[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]], [[9, 10]]]
