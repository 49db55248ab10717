"""The features against synthetic speech whose pitch, voicing and formants are known at every sample."""

import functools

import numpy as np
import pytest

pytest.importorskip("soxr", reason="soxr is not installed: run in the torch environment")

from prosody_toolkit import features

RATE = 16000
HOP = 256
# Men's formants in Hz: G. Peterson and H. Barney, "Control methods used in a study of the vowels", 1952.
VOWELS = {
    "a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010),
    "o": (570, 840, 2410), "u": (300, 870, 2240),
}  # fmt: skip
BANDWIDTHS = (60, 90, 120)
F0, F1, F2 = 0, 2, 3


def speak(f0, vowel):
    """Return harmonics of `f0` `[N]` in Hz, 6 dB less per octave, as loud as resonances make it at each time."""
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    wave = np.zeros(len(f0))
    for k in range(1, int(7500 / f0.min()) + 1):
        z = np.exp(-2j * np.pi * k * f0 / RATE)
        response = (k * f0 < 7500) / k + 0j
        for formant, bandwidth in zip(VOWELS[vowel], BANDWIDTHS, strict=True):
            pole = np.exp(np.pi * (-bandwidth + 2j * formant) / RATE)
            response *= abs(1 - pole) ** 2 / ((1 - pole * z) * (1 - pole.conjugate() * z))
        wave += np.abs(response) * np.cos(k * phase + np.angle(response))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def analyse(wave):
    return features.analyse(wave, features.Settings(output_normalize=False))


@functools.cache
def talk(seed, noise):
    """Return six glides with noise between them, faded over 5 ms, and the truth `[N]`; half end in voice."""
    random = np.random.default_rng(seed)
    waves, truths = [], []
    for _ in range(6):
        seconds = random.uniform(0.2, 0.6)
        slope = random.uniform(-2, 2)  # octaves per second: speech is seldom quicker
        f0 = random.uniform(100, 220) * 2.0 ** (slope * np.arange(int(RATE * seconds)) / RATE)
        place = np.arange(len(f0))
        fade = np.minimum(1, np.minimum(place, place[::-1]) / 80)
        pause = int(RATE * random.uniform(0.08, 0.3))
        waves += [speak(f0, random.choice(list(VOWELS))) * fade, noise * random.standard_normal(pause)]
        truths += [f0, np.zeros(pause)]
    end = -1 if seed % 2 else None
    return np.concatenate(waves[:end]).astype(np.float32), np.concatenate(truths[:end])


# Of a voice that peaks at 0.3: the last is as loud as what counts as silence, where a pause may still resemble a voice.
@pytest.mark.parametrize(("noise", "least"), [(0.0005, 0.98), (0.002, 0.98), (0.01, 0.975)])
def test_voicing_and_pitch_of_speech_with_many_pauses(noise, least):
    right, errors = [], []
    for seed in range(6):
        wave, truth = talk(seed, noise)
        found, voiced = analyse(wave)
        expected = truth[np.arange(len(voiced)) * HOP]
        right.append((voiced > 0) == (expected > 0))
        both = (voiced > 0) & (expected > 0)
        errors.append(np.abs(found[both, F0] - expected[both]))
    assert np.concatenate(right).mean() >= least
    assert np.concatenate(errors).mean() <= 0.5


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_a_clip_that_is_voiced_to_its_end_keeps_its_end(seed):
    wave, truth = talk(seed, 0.002)
    found, voiced = analyse(wave)
    assert truth[-1] > 0 and voiced[-15:].all()
    expected = truth[np.arange(len(voiced)) * HOP]
    assert np.abs(found[-15:, F0] - expected[-15:]).max() < 4  # the very last window holds half of itself


@pytest.mark.parametrize("vowel", sorted(VOWELS))
@pytest.mark.parametrize("f0", [90.0, 110.0, 130.0])  # men's; for what comes above, see `formants`
def test_formants_of_vowels(f0, vowel):
    found, voiced = analyse(speak(np.full(RATE, f0), vowel))
    assert voiced.mean() >= 0.98
    assert np.abs(found[voiced > 0, F0] - f0).mean() <= 0.5
    for column, truth in ((F1, VOWELS[vowel][0]), (F2, VOWELS[vowel][1])):
        assert np.median(found[voiced > 0, column]) == pytest.approx(truth, rel=0.08)


@pytest.mark.parametrize(("low", "high"), [(80, 160), (100, 300), (300, 150), (66, 440)])
def test_formants_stay_while_the_pitch_glides(low, high):
    f0 = np.linspace(low, high, 3 * RATE)
    found, voiced = analyse(speak(f0, "a"))
    assert voiced.mean() >= 0.98
    assert np.abs(found[:, F0] - f0[np.arange(len(voiced)) * HOP])[voiced > 0].mean() <= 0.5
    assert np.median(found[voiced > 0, F1]) == pytest.approx(730, rel=0.08)
    assert np.median(found[voiced > 0, F2]) == pytest.approx(1090, rel=0.08)
