"""The log-mel spectrogram against librosa 0.8.1's, and its independence from how the audio is cut."""

import pathlib

import numpy as np
import pytest

from worker.networks import log_mel

DATA = pathlib.Path(__file__).resolve().parent.parent / "parity" / "data" / "musicnn"
CONTEXT = log_mel.FFT_LENGTH // 2


def read_trumpet():
    """Return the audio `[T]` and librosa's mel power as upstream stores it, float16 `[F, 96]`."""
    with np.load(str(DATA / "trumpet_log_mel.npz")) as data:
        return data["wave"].astype(np.float32) / 32768, data["mel_power"]


def transform_file(wave):
    """Return the frames `[F, 96]` of a whole file, centred and reflected as librosa does by default."""
    return log_mel.transform(np.pad(wave, CONTEXT, mode="reflect")[None])[0]


def make_tone(amplitude):
    seconds = np.arange(4096) / log_mel.SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)[None]


def test_real_audio_matches_librosa():
    wave, stored = read_trumpet()
    bands = transform_file(wave)
    expected = np.log10(stored.astype(np.float64) * 10000 + 1)
    difference = np.abs(bands - expected)
    assert bands.shape == expected.shape == (334, 96)
    assert bands.dtype == np.float32
    assert difference.max() < 5e-4  # one step of float16
    assert (difference > 2e-6).mean() < 6e-4  # the bands that were rounded the other way


@pytest.mark.parametrize("hop_frames", [11, 61, 187])
def test_windows_equal_slices_of_the_whole_file(hop_frames):
    wave, _ = read_trumpet()
    padded = np.pad(wave, CONTEXT, mode="reflect")
    whole = log_mel.mel_power(padded[None])[0]  # float16 would hide most differences
    for first in range(0, len(whole) - 187 + 1, hop_frames):
        begin = first * log_mel.HOP_LENGTH
        window = padded[begin : begin + 187 * log_mel.HOP_LENGTH + CONTEXT]
        np.testing.assert_array_equal(log_mel.mel_power(window[None])[0], whole[first : first + 187])


def test_rows_do_not_depend_on_their_neighbours():
    wave, _ = read_trumpet()
    rows = wave[: 3 * 8000].reshape(3, 8000)
    alone = np.concatenate([log_mel.transform(row[None]) for row in rows])
    np.testing.assert_array_equal(log_mel.transform(rows), alone)
    np.testing.assert_array_equal(log_mel.transform(rows[::-1]), alone[::-1])


def test_silence_is_zero():
    np.testing.assert_array_equal(log_mel.transform(np.zeros((1, 1024), np.float32)), np.zeros((1, 3, 96)))


def test_full_scale_survives_float16():
    bands = log_mel.transform(make_tone(1.0))
    assert bands.max() > np.log10(65504)  # what 10000 * power would be clipped at in float16
    assert np.isfinite(bands).all()


def test_power_beyond_float16_is_infinite():
    assert np.isinf(log_mel.transform(make_tone(200.0))).any()


@pytest.mark.parametrize(("hertz", "mel"), [(0.0, 0.0), (200.0, 3.0), (1000.0, 15.0), (6400.0, 42.0)])
def test_mel_scale(hertz, mel):
    assert log_mel.hz_to_mel(np.array(hertz)) == pytest.approx(mel)
    assert log_mel.mel_to_hz(np.array(mel)) == pytest.approx(hertz)


def test_filters_are_triangles_of_equal_area():
    filters = log_mel.mel_filters(16000, 16384, 96)
    np.testing.assert_allclose(filters.sum(axis=1) * 16000 / 16384, 1.0, rtol=2e-3)
    peaks = filters.argmax(axis=1)
    assert (np.diff(peaks) > 0).all()


def test_shared_filters_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        log_mel.mel_filters(16000, 512, 96)[0, 0] = 1.0
