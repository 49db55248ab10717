"""OpenL3's spectrograms and windows; the network itself is compared inside its environment."""

import numpy as np
import pytest

from worker import catalog
from worker.networks import openl3_features
from worker.networks.log_mel import mel_filters, stft
from worker.work import windows

every_repr = pytest.mark.parametrize("input_repr", ["mel256", "mel128", "linear"])
NOISE = np.random.RandomState(0).uniform(-0.5, 0.5, (3, 48000)).astype(np.float32)


def naive(wave, input_repr):
    """Return the spectrogram `[bands, frames]` by the definition, frame by frame in float64."""
    length, bands, frames = {"mel256": (2048, 256, 199), "mel128": (2048, 128, 199), "linear": (512, 257, 197)}[
        input_repr
    ]
    padded = np.concatenate([wave, np.zeros(length)]).astype(np.float64)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    magnitudes = np.abs([np.fft.rfft(padded[at : at + length] * hann) for at in 242 * np.arange(frames)])
    if input_repr != "linear":
        magnitudes = magnitudes @ mel_filters(48000, length, bands).T.astype(np.float64)
    decibels = 10 * np.log10(np.maximum(magnitudes, 1e-10))
    return np.maximum(decibels - decibels.max(), -80).T


@every_repr
def test_spectrograms_follow_their_definition(input_repr):
    found = openl3_features.transform(NOISE, input_repr, stft)
    assert found.dtype == np.float32
    for spectrogram, wave in zip(found, NOISE):
        np.testing.assert_allclose(spectrogram, naive(wave, input_repr), atol=2e-4)


@every_repr
def test_a_spectrogram_depends_on_its_window_alone(input_repr):
    together = openl3_features.transform(NOISE, input_repr, stft)
    alone = [openl3_features.transform(wave[np.newaxis], input_repr, stft)[0] for wave in NOISE]
    np.testing.assert_array_equal(together, alone)


@every_repr
def test_gain_makes_no_difference_and_silence_is_flat(input_repr):
    loud, soft = (openl3_features.transform(NOISE[:1] * gain, input_repr, stft) for gain in (1.0, 0.25))
    np.testing.assert_allclose(loud, soft, atol=1e-4)
    assert (openl3_features.transform(np.zeros((1, 48000), np.float32), input_repr, stft) == 0).all()


def test_values_lie_between_the_maximum_and_80_decibels_below():
    wave = np.sin(2 * np.pi * 1000 * np.arange(48000) / 48000).astype(np.float32)
    found = openl3_features.transform(wave[np.newaxis], "mel256", stft)
    assert found.max() == 0 and found.min() == -80


@pytest.mark.parametrize(
    "samples,params,count",
    [
        (1, {}, 1),
        (24000, {}, 1),
        (24001, {}, 2),
        (30 * 48000, {}, 296),
        (48000, {"center": False}, 1),
        (48001, {"center": False}, 2),
        (3 * 48000, {"center": False, "hop_seconds": 0.5}, 5),
        (48000, {"hop_seconds": 1.0}, 2),
    ],
)
def test_there_are_as_many_windows_as_upstream_has(samples, params, count):
    framing = catalog.build("openl3", params).framing()
    assert len(windows.cut(np.ones((1, samples), np.float32), framing).starts) == count


def test_the_other_size_is_a_second_output():
    assert [(o.name, o.shape) for o in catalog.build("openl3", {}).outputs()] == [
        ("embedding", (None, 512)),
        ("embedding_6144", (None, 6144)),
    ]
    assert [o.name for o in catalog.build("openl3", {"embedding_size": 6144}).outputs()] == [
        "embedding",
        "embedding_512",
    ]


@pytest.mark.parametrize(
    "params,words",
    [
        ({"hop_seconds": 0}, "holds no sample"),
        ({"hop_seconds": 1e-6}, "holds no sample"),
        ({"checkpoint": "mel256"}, "not the path of an .h5"),
        ({"input_repr": "mel512"}, "is not one of mel256, mel128, linear"),
        ({"embedding_size": 1024}, "is not one of 512, 6144"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        catalog.build("openl3", params)


def test_every_published_file_is_declared_with_its_blob():
    found = set()
    for input_repr in ("mel256", "mel128", "linear"):
        for content in ("music", "env"):
            (one,) = catalog.build("openl3", {"input_repr": input_repr, "content_type": content}).checkpoints()
            assert one.url.endswith("/openl3_audio_{}_{}-v0_4_0.h5.gz".format(input_repr, content))
            found.add(one.git_blob)
    assert len(found) == 6
