"""Prosody against synthetic speech whose truth is known, and against what must hold for any audio."""

import functools
import itertools
import pathlib
import sys
import typing as tp

import numpy as np
import pytest

from worker.extractor import Batch
from worker.extractors.prosody import Prosody

pytest.importorskip("soxr", reason="soxr is not installed: run in the torch environment")

SAMPLE_RATE = 16000
# Men's formants in Hz: G. Peterson and H. Barney, "Control methods used in a study of the vowels", 1952.
VOWELS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240), "e": (530, 1840, 2480)}
F0, WIDTH, F1, F2, POWER, SNR = range(6)


@pytest.fixture(scope="module", autouse=True)
def environment() -> tp.Iterator[None]:
    """Put the environment's own modules on the path."""
    folder = str(pathlib.Path(__file__).parents[2] / "images" / "torch-cuda")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


def analyse(wave: np.ndarray, **parameters: tp.Any) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return features `[T, 6]`, in Hz and dB unless told otherwise, and voicing `[T]`."""
    parameters.setdefault("output_normalize", False)
    extractor = Prosody(**parameters)
    extractor.load("cpu", {})
    wave = np.asarray(wave, np.float32)
    batch = Batch(wave[None, None], np.array([len(wave)]), np.zeros(1, np.int64))
    arrays = extractor.extract(batch)
    assert sorted(arrays) == sorted(output.name for output in extractor.outputs())
    for output in extractor.outputs():
        assert arrays[output.name].dtype == output.dtype
        assert arrays[output.name].ndim == 1 + len(output.shape)
    return arrays["features"][0], arrays["voiced"][0]


def synthesize(frequency: np.ndarray, vowel: str = "a") -> np.ndarray:
    """Return harmonics of `frequency` `[N]` in Hz, falling by 6 dB per octave, through three resonances."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    middle = float(np.median(frequency))
    wave = np.zeros(len(frequency))
    for k in range(1, int(7500 / frequency.max()) + 1):
        z = np.exp(-2j * np.pi * k * middle / SAMPLE_RATE)
        response = 1.0 + 0j
        for formant, bandwidth in zip(VOWELS[vowel], (80, 90, 120), strict=True):
            pole = np.exp(np.pi * (-bandwidth + 2j * formant) / SAMPLE_RATE)
            response *= abs(1 - pole) ** 2 / ((1 - pole * z) * (1 - pole.conjugate() * z))
        wave += abs(response) / k * np.cos(k * phase + np.angle(response))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def steady(f0: float, seconds: float = 1.0, vowel: str = "a") -> np.ndarray:
    return synthesize(np.full(int(seconds * SAMPLE_RATE), f0), vowel)


@functools.cache
def utterance() -> np.ndarray:
    """Return vibrato, a pause with faint noise, a glide that lasts to the very last sample."""
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    noise = 0.002 * np.random.default_rng(1).standard_normal(6400)
    first = synthesize(150 * (1 + 0.05 * np.sin(2 * np.pi * 4 * t)), "e")
    return np.concatenate([first, noise, synthesize(110 + 110 * t, "a")]).astype(np.float32)


def utterance_truth(times: np.ndarray) -> np.ndarray:
    vibrato = 150 * (1 + 0.05 * np.sin(2 * np.pi * 4 * times))
    return np.where(times < 1.0, vibrato, np.where(times < 1.4, 0.0, 110 + 110 * (times - 1.4)))


@pytest.mark.parametrize("vowel", sorted(VOWELS))
@pytest.mark.parametrize("f0", [85.0, 110.0, 160.0])
def test_vowels_have_their_pitch_and_formants(f0: float, vowel: str) -> None:
    features, voiced = analyse(steady(f0, vowel=vowel))
    assert voiced.mean() >= 0.98
    assert np.abs(features[voiced > 0, F0] - f0).mean() < 0.2
    first, second = np.median(features[voiced > 0, F1]), np.median(features[voiced > 0, F2])
    assert first == pytest.approx(VOWELS[vowel][0], rel=0.08)
    assert second == pytest.approx(VOWELS[vowel][1], rel=0.03)


@pytest.mark.parametrize(("low", "high"), [(80, 160), (100, 300), (120, 240), (300, 150), (65, 450)])
def test_a_glissando_is_followed(low: float, high: float) -> None:
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    truth = low + (high - low) * t / 3
    features, voiced = analyse(synthesize(truth))
    assert voiced.mean() >= 0.98
    expected = np.interp(np.arange(len(voiced)) * 0.016, t, truth)
    assert np.abs(features[:, F0] - expected)[voiced > 0].mean() <= 0.5


@pytest.mark.parametrize("f0", [70.0, 220.0, 330.0, 440.0])
def test_pitch_is_right_to_the_ends_of_its_range(f0: float) -> None:
    features, voiced = analyse(steady(f0))
    assert voiced.mean() > 0.97
    assert np.abs(features[voiced > 0, F0] - f0).mean() < 0.5


def test_moving_pitch_and_voicing_follow_the_truth() -> None:
    features, voiced = analyse(utterance())
    truth = utterance_truth(np.arange(len(voiced)) * 0.016)
    assert ((truth > 0) == (voiced > 0)).mean() >= 0.98
    both = (truth > 0) & (voiced > 0)
    assert np.abs(features[both, F0] - truth[both]).mean() < 0.5
    assert (features[voiced == 0][:, [F0, WIDTH, F1, F2, SNR]] == 0).all()


@pytest.mark.parametrize("level", ["none", "light", "medium", "heavy"])
def test_a_voice_that_never_stops_keeps_its_last_segment(level: str) -> None:
    features, voiced = analyse(utterance(), smoothing_level=level)
    last = features[-40:]
    assert voiced[-40:].all()
    assert (last[:, [F0, F1, F2]] > 0).all()
    assert last[-1, F0] == pytest.approx(220, abs=6)


@pytest.mark.parametrize("noise_db", [-20.0, -10.0, 0.0])
def test_snr_is_the_ratio_of_harmonics_to_noise(noise_db: float) -> None:
    clean = steady(120.0, 4.0)
    noise = np.random.default_rng(2).standard_normal(len(clean)) * clean.std() * 10 ** (noise_db / 20)
    features, voiced = analyse(clean + noise)
    assert np.median(features[voiced > 0, SNR]) == pytest.approx(-noise_db, abs=2.0)


def test_snr_of_a_clean_voice_is_high_between_samples_and_at_the_edges() -> None:
    """330 Hz is no whole number of samples; half of the first window lies before the audio."""
    features, _ = analyse(steady(330.0), smoothing_level="none")
    assert np.median(features[:, SNR]) > 45
    assert features[[0, -1], SNR].min() > 17


def test_width_is_that_of_the_window_and_grows_with_moving_pitch() -> None:
    still, _ = analyse(steady(150.0, 2.0))
    longer, _ = analyse(steady(150.0, 2.0), frame_ms=100.0)
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    rough, voiced = analyse(synthesize(150 * (1 + 0.1 * np.sin(2 * np.pi * 30 * t))))
    assert np.median(still[:, WIDTH]) == pytest.approx(1.44 / 0.050, abs=1.0)
    assert np.median(longer[:, WIDTH]) == pytest.approx(1.44 / 0.100, abs=1.0)
    assert np.median(rough[voiced > 0, WIDTH]) > 40


def test_power_is_the_level_of_the_emphasized_signal() -> None:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for frequency in (200.0, 4000.0):
        wave = np.sin(2 * np.pi * frequency * t)
        for ratio in (0.0, 0.7):
            gain = abs(1 - ratio * np.exp(-2j * np.pi * frequency / SAMPLE_RATE))
            features, _ = analyse(wave, emphasize_ratio=ratio, smoothing_level="none")
            expected = 20 * np.log10(gain / np.sqrt(2))
            np.testing.assert_allclose(features[2:-2, POWER], expected, atol=0.02)


def test_emphasis_acts_on_power_only() -> None:
    plain, _ = analyse(utterance(), emphasize_ratio=0.0)
    emphasized, _ = analyse(utterance(), emphasize_ratio=0.95)
    np.testing.assert_array_equal(np.delete(plain, POWER, 1), np.delete(emphasized, POWER, 1))
    assert (np.abs(plain - emphasized)[:, POWER] > 1).mean() > 0.9


def test_half_the_amplitude_is_6_db_less_power_and_nothing_else() -> None:
    loud, voiced = analyse(utterance())
    soft, same = analyse(0.5 * utterance())
    np.testing.assert_array_equal(voiced, same)
    np.testing.assert_allclose(loud[:, POWER] - soft[:, POWER], 20 * np.log10(2), atol=1e-3)
    np.testing.assert_allclose(np.delete(loud, POWER, 1), np.delete(soft, POWER, 1), rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 512, 800, 16000, 131072, 131073, 140001])
@pytest.mark.parametrize("frame_ms, hop_ms", [(50.0, 16.0), (20.0, 10.0), (33.3, 7.77)])
def test_number_of_frames(length: int, frame_ms: float, hop_ms: float) -> None:
    features, voiced = analyse(steady(120.0, 9.0)[:length], frame_ms=frame_ms, hop_ms=hop_ms)
    count = 1 + (length - 1) // round(hop_ms * 16)
    assert features.shape == (count, 6)
    assert voiced.shape == (count,)


def test_a_long_file_is_the_same_in_its_middle() -> None:
    """More than one block of frames: no seam, and no drift of the formants' own time axis."""
    wave = utterance()
    once, _ = analyse(wave, smoothing_level="none")
    period = len(wave) // 256 * 256
    many, _ = analyse(np.concatenate([wave[:period]] * 5 + [wave]), smoothing_level="none")
    count = period // 256
    for start in range(count, 5 * count, count):
        part = slice(10, count - 10)
        np.testing.assert_allclose(many[start:][part], once[part], rtol=2e-2, atol=0.5)


@functools.cache
def hostile() -> tp.Dict[str, np.ndarray]:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    random = np.random.default_rng(3)
    impulses = np.zeros(SAMPLE_RATE)
    impulses[[0, 5000, 5001, -1]] = 1, 1, -1, 1
    return {
        "silence": np.zeros(SAMPLE_RATE),
        "constant": np.full(SAMPLE_RATE, 0.5),
        "square": np.sign(np.sin(2 * np.pi * 100 * t + 0.1)),
        "clipped": np.clip(5 * utterance(), -1, 1),
        "over range": 300 * utterance(),
        "one sample": np.ones(1),
        "silent sample": np.zeros(1),
        "10 ms": steady(120.0)[:160],
        "impulses": impulses,
        "nyquist": np.cos(np.pi * np.arange(SAMPLE_RATE)),
        "pure tone": np.sin(2 * np.pi * 200 * t),
        "noise": random.standard_normal(SAMPLE_RATE),
        "faintest": 1e-30 * random.standard_normal(SAMPLE_RATE),
        "inaudible voice": 5e-7 * utterance(),
        "offset voice": 0.5 * utterance() + 0.5,
    }


@pytest.mark.parametrize("name", sorted(hostile()))
@pytest.mark.parametrize("level", ["none", "light", "medium", "heavy"])
def test_any_audio_gives_finite_numbers_that_agree_with_voicing(name: str, level: str) -> None:
    for normalize in (False, True):
        features, voiced = analyse(hostile()[name], smoothing_level=level, output_normalize=normalize)
        assert np.isfinite(features).all()
        np.testing.assert_array_equal(features[:, F0] > 0, voiced > 0)
        assert (features[voiced == 0][:, [WIDTH, F1, F2, SNR]] == 0).all()
        assert not normalize or (features.min() >= 0 and features.max() <= 1)


@pytest.mark.parametrize("name", ["silence", "constant", "noise", "faintest", "inaudible voice"])
def test_what_is_no_voice_is_unvoiced(name: str) -> None:
    _, voiced = analyse(hostile()[name])
    assert voiced.mean() < 0.05


def test_an_offset_does_not_hide_a_voice() -> None:
    features, voiced = analyse(hostile()["offset voice"])
    truth, expected = analyse(utterance())
    assert (voiced == expected).mean() > 0.97
    both = (voiced > 0) & (expected > 0)
    np.testing.assert_allclose(features[both, F0], truth[both, F0], atol=1.0)


def test_normalized_values_are_the_documented_fractions() -> None:
    plain, _ = analyse(utterance())
    scaled, voiced = analyse(utterance(), output_normalize=True)
    expected = plain / np.array([450, 200, 1500, 4000, 80, 40], np.float32)
    expected[:, POWER] += 1
    np.testing.assert_allclose(scaled, np.clip(expected, 0, 1), atol=1e-6)
    assert (scaled[voiced > 0, F0] > 0.1).all()


def test_smoothing_reduces_jitter_level_by_level() -> None:
    random = np.random.default_rng(4)
    walk = np.repeat(random.standard_normal(200) * 6, 320)
    wave = synthesize(140 + walk) + 0.02 * random.standard_normal(len(walk))
    jitter = []
    for level in ("none", "light", "medium", "heavy"):
        features, voiced = analyse(wave, smoothing_level=level)
        pairs = (voiced[1:] > 0) & (voiced[:-1] > 0)
        jitter.append(np.abs(np.diff(features[:, F0]))[pairs].mean())
    assert all(smoother < 0.9 * rougher for rougher, smoother in itertools.pairwise(jitter)), jitter


def test_smoothing_leaves_a_parabola_and_never_crosses_a_boundary() -> None:
    from prosody_toolkit import smoothing

    t = np.arange(60, dtype=np.float32)
    contour = np.stack([(t - 30) ** 2 + 100, np.where(t < 30, 0.0, 50.0)], axis=1).astype(np.float32)
    voiced = (t >= 30).astype(np.uint8)
    result = smoothing.smooth(contour, voiced, "heavy", 16.0)
    np.testing.assert_array_equal(result[:, 1], contour[:, 1])
    np.testing.assert_allclose(result[38:52, 0], contour[38:52, 0], rtol=1e-5)


def test_runs_cover_every_frame() -> None:
    from prosody_toolkit import smoothing

    assert smoothing.find_runs(np.array([0, 0, 1, 1, 1, 0, 1])) == [(0, 2), (2, 5), (5, 6), (6, 7)]
    assert smoothing.find_runs(np.array([1])) == [(0, 1)]


def test_predictor_recovers_a_known_resonance() -> None:
    from prosody_toolkit import formants

    pulse = np.zeros(4000)
    pulse[0] = 1.0
    for frequency, bandwidth in ((500, 60), (1500, 80), (2500, 120)):
        radius = np.exp(-np.pi * bandwidth / formants.SAMPLE_RATE)
        first = 2 * radius * np.cos(2 * np.pi * frequency / formants.SAMPLE_RATE)
        for n in range(len(pulse)):
            pulse[n] += (first * pulse[n - 1] if n else 0) - (radius**2 * pulse[n - 2] if n > 1 else 0)
    estimate = formants.estimate(pulse[None])
    np.testing.assert_allclose(estimate, [[500, 1500]], rtol=1e-3)


def test_equal_audio_gives_equal_bytes() -> None:
    first, second = analyse(utterance()), analyse(utterance())
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_read_only_audio_is_accepted_and_left_alone() -> None:
    wave = utterance()
    copy = wave.copy()
    wave.flags.writeable = False
    analyse(wave)
    np.testing.assert_array_equal(wave, copy)
