"""One vector per item from frames and beats, against values made up to give round numbers."""

import numpy as np
import pytest

from worker.networks import summaries


def pitch(*frames):
    return np.array(frames, np.float32)


def test_pitch_is_summarised_over_confident_frames_alone():
    found = summaries.summarize_pitch(pitch((220, 0.9), (440, 0.5), (880, 0.8), (1000, 0.49)))
    assert found.dtype == np.float32 and found.shape == (9,)
    low, high = np.percentile([220, 440, 880], [25, 75])
    np.testing.assert_allclose(found[:3], [440, 1200 * np.log2(high / low), 3 / 4], rtol=1e-6)
    # C3 .. C4 .. C5 .. C6: 220 is A3, 440 is A4, 880 is A5
    np.testing.assert_allclose(found[3:], [0, 0, 1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)


def test_a_steady_tone_has_no_spread():
    found = summaries.summarize_pitch(pitch(*[(440, 0.9)] * 10))
    np.testing.assert_allclose(found, [440, 0, 1, 0, 0, 0, 1, 0, 0], rtol=1e-6)


def test_pitches_at_the_ends_of_the_range_count_to_the_nearest_octave():
    found = summaries.summarize_pitch(pitch((31.7, 0.9), (32.71, 0.9), (65.5, 0.9), (2100, 0.9)))
    np.testing.assert_allclose(found[3:], [0.5, 0.25, 0, 0, 0, 0.25])


@pytest.mark.parametrize("frames", [[(0, 0)], [(0, 0.9)], [(547, 0.14)] * 5], ids=["nothing", "no pitch", "silence"])
def test_without_a_confident_frame_all_is_zero(frames):
    np.testing.assert_array_equal(summaries.summarize_pitch(pitch(*frames)), np.zeros(9))


def test_beats_are_summarised():
    beats = np.array([(0.1, 4), (0.6, 1), (1.1, 2), (1.6, 3), (2.0, 4)], np.float32)
    activation = np.zeros((250, 2), np.float32)
    activation[[10, 110, 160, 200], 0] = [0.5, 0.6, 0.7, 0.8]
    activation[60] = [0.1, 0.8]
    found = summaries.summarize_beats(beats, activation, 100)
    assert found.dtype == np.float32 and found.shape == (6,)
    low, high = np.percentile([0.5, 0.5, 0.5, 0.4], [25, 75])
    np.testing.assert_allclose(found, [60 * 4 / 1.9, (high - low) / 0.5, 5, 3.5 / 5, 1 / 5, 0.8], rtol=1e-4)


def test_of_one_beat_there_is_no_tempo_and_of_none_nothing():
    activation = np.full((100, 2), 0.25, np.float32)
    one = summaries.summarize_beats(np.array([(0.99, 2)], np.float32), activation, 100)
    np.testing.assert_allclose(one, [0, 0, 1, 0.5, 0, 0])
    none = summaries.summarize_beats(np.zeros((0, 2), np.float32), activation, 100)
    np.testing.assert_array_equal(none, np.zeros(6))
