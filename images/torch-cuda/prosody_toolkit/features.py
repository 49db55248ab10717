"""Six prosodic features per frame, from a waveform.

| feature | unit | meaning | normalised |
|---|---|---|---|
| f0 | Hz | fundamental frequency, 65 to 450 Hz; 0 in unvoiced frames | f0 / 450 |
| f0_width | Hz | half-power width of the spectral peak at f0 | / 200 |
| f1, f2 | Hz | first two formants | / 1500, / 4000 |
| power | dB | pre-emphasized root mean square under a Hann window | (power + 80) / 80 |
| snr | dB | harmonics-to-noise ratio | / 40 |

0 dB of power is a mean square of 1. In unvoiced frames all but `power` is 0. Normalised values are clipped
to 0 .. 1; as every range but that of `power` begins at 0, an unvoiced frame stays 0, and f0 is positive
exactly where it is voiced.

`f0_width` is read off the spectrum of the pitch window, whose main lobe bounds it from below: 1.44 bins
of a Hann window, 29 Hz for 50 ms. Moving pitch, roughness and creak widen it.

Frames are centred at `t * hop`, so there are `1 + (N - 1) // hop_length` of them.
"""

import dataclasses
import typing as tp

import numpy as np
import soxr

from prosody_toolkit import formants, pitch, smoothing, spectrum

SAMPLE_RATE = 16000
NAMES = ("f0", "f0_width", "f1", "f2", "power", "snr")
VERSION = 2  # that of the extractor `prosody`: raised when the numbers change, as tokens of others mean nothing
RANGES = ((0.0, pitch.CEILING), (0.0, 200.0), (0.0, 1500.0), (0.0, 4000.0), (-80.0, 0.0), (0.0, 40.0))

_BLOCK = 128  # frames at once: their arrays fit the cache of a core


@dataclasses.dataclass(frozen=True)
class Settings:
    """How frames are cut, and what happens to the numbers.

    `emphasize_ratio` is the coefficient of the pre-emphasis `y[n] = x[n] - ratio * x[n - 1]` in front of
    `power`, and acts on nothing else: 0 gives the plain level, 0.7 weighs low frequencies by -10.5 dB and
    4 kHz by +1.7 dB, so that rumble and the voice's strong low harmonics do not drown its brilliance.
    (Formants have a pre-emphasis of their own, which their accuracy depends on; pitch needs none.)
    """

    frame_length: int = 800  # samples; pitch and its width see at least three periods of 65 Hz
    hop_length: int = 256  # samples between the centres of two frames
    emphasize_ratio: float = 0.7
    smoothing_level: str = "light"
    output_normalize: bool = True

    @classmethod
    def of_ms(cls, frame_ms: float, hop_ms: float, *others: tp.Any) -> "Settings":
        """Return them as a job and a notebook say them, with lengths in milliseconds: one sample at least."""
        frame_length, hop_length = (max(1, round(length * SAMPLE_RATE / 1000)) for length in (frame_ms, hop_ms))
        return cls(frame_length, hop_length, *others)


@dataclasses.dataclass(frozen=True)
class FeatureDefinition:
    """Names, order, ranges and analysis of the features; lengths are in samples at `sample_rate` Hz.

    A token model and the features that it is used on must agree in all of this, or every distance is wrong
    without any sign of it. So each model carries the definition that it was fitted to, and `refuse_others` compares.
    """

    version: int  # of the extractor, raised when its numbers change
    names: tp.Tuple[str, ...]
    ranges: tp.Tuple[tp.Tuple[float, float], ...]  # what 0 and 1 stand for, in Hz and dB
    sample_rate: int
    frame_length: int
    hop_length: int
    emphasize_ratio: float
    smoothing_level: str
    normalized: bool

    def settings(self) -> Settings:
        """Return how the features are computed."""
        lengths = self.frame_length, self.hop_length
        return Settings(*lengths, self.emphasize_ratio, self.smoothing_level, self.normalized)


def define(settings: tp.Optional[Settings] = None) -> FeatureDefinition:
    """Return the definition of what `analyse` gives with `settings`; None takes the default ones."""
    said = dataclasses.asdict(settings or Settings())
    normalized = said.pop("output_normalize")
    analysis = VERSION, NAMES, RANGES, SAMPLE_RATE
    return FeatureDefinition(*analysis, normalized=normalized, **said)


def define_normalized(settings: Settings) -> FeatureDefinition:
    """Return the definition for settings, normalised whatever they say.

    Tokens are always made of normalised features; `output_normalize` only decides what is written.
    """
    return define(dataclasses.replace(settings, output_normalize=True))


def read_definition(plain: tp.Any) -> FeatureDefinition:
    """Return the definition that a model names, in plain values.

    Raises:
        ValueError: it is damaged.
    """
    try:
        ranges = tuple((float(low), float(high)) for low, high in plain["ranges"])
        return FeatureDefinition(**{**plain, "names": tuple(plain["names"]), "ranges": ranges})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError("the definition of its features is damaged; fit the model again") from error


def refuse_others(fitted: tp.Optional[FeatureDefinition], given: FeatureDefinition, where: str) -> None:
    """Raise unless a model was fitted to just these features; one that says nothing of its own was not.

    Raises:
        ValueError: they differ; with `where` the model is, and the first difference.
    """
    if fitted is None:
        raise ValueError(
            f"{where}: does not say which features it was fitted to, and tokens of others mean nothing; "
            "fit a model of your own with `consort fit`"
        )
    for field in dataclasses.fields(fitted):
        theirs, ours = getattr(fitted, field.name), getattr(given, field.name)
        if theirs != ours:
            raise ValueError(
                f"{where}: fitted to features with {field.name} {theirs}, here it is {ours}; "
                "fit it again with `consort fit`, or set the parameter"
            )


def analyse(wave: np.ndarray, settings: Settings) -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return features float32 `[T, 6]` in the order of `NAMES` and voicing uint8 `[T]`.

    The `wave` is float32 `[N]` at 16 kHz, N >= 1, finite. A steady tone above 450 Hz repeats itself within the
    range of the pitch, too: it counts as voiced.
    """
    wave = np.require(wave, np.float32, ["C"])
    frames = _Frames(wave, settings)
    features = np.zeros((frames.count, len(NAMES)), np.float32)
    candidates, features[:, 4] = _survey(frames)
    f0, correlation = pitch.find_path(candidates, settings.hop_length / SAMPLE_RATE)
    voiced = np.flatnonzero(f0)
    features[:, 0] = f0
    features[voiced, 1] = _measure_widths(frames, f0, voiced)
    features[voiced, 2:4] = _measure_formants(wave, settings, voiced)
    features[voiced, 5] = pitch.harmonicity(correlation[voiced])
    mask = (f0 > 0).astype(np.uint8)
    hop_ms = 1000 * settings.hop_length / SAMPLE_RATE
    features = smoothing.smooth(features, mask, settings.smoothing_level, hop_ms)
    return (normalize(features) if settings.output_normalize else features), mask


def normalize(features: np.ndarray) -> np.ndarray:
    """Map `[T, 6]` linearly from `RANGES` to 0 .. 1, and clip."""
    low, high = np.array(RANGES, np.float32).T
    scaled: np.ndarray = (features - low) / (high - low)
    return scaled.clip(0.0, 1.0)


class _Frames:
    """Pitch windows of a waveform, cut on demand so that memory does not grow with its length."""

    def __init__(self, wave: np.ndarray, settings: Settings) -> None:
        self.wave = wave
        self.emphasized = spectrum.emphasize(wave, settings.emphasize_ratio)
        self.hop_length = settings.hop_length
        self.frame_length = settings.frame_length
        self.length = pitch.window_length(settings.frame_length, SAMPLE_RATE)
        self.count = 1 + (len(wave) - 1) // self.hop_length
        self.window = hann(self.length)[None]

    def cut(self, chosen: np.ndarray) -> tp.Tuple[np.ndarray, np.ndarray]:
        """Return frames `[B, L]`, and the window, zero where a frame reaches out of the audio."""
        samples, inside = gather(self.wave, chosen * self.hop_length, self.length)
        return samples, self.window if inside is None else self.window * inside


def hann(length: int) -> np.ndarray:
    """Return the periodic window float32 `[length]`, `0.5 - 0.5 cos(2 pi n / length)`."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def gather(wave: np.ndarray, centres: np.ndarray, length: int) -> tp.Tuple[np.ndarray, np.ndarray | None]:
    """Return `[B, length]` around `centres` (samples), zero outside of `wave`, and a mask of the inside.

    The mask is None where every frame lies inside, as it does but for the ends of a file.
    """
    starts = centres - length // 2
    if len(wave) >= length and starts.min() >= 0 and starts.max() <= len(wave) - length:
        return np.lib.stride_tricks.sliding_window_view(wave, length)[starts], None
    index = starts[:, None] + np.arange(length)
    inside = (index >= 0) & (index < len(wave))
    return np.where(inside, wave[index.clip(0, len(wave) - 1)], np.float32(0)), inside


def _blocks(count: int, size: int) -> tp.Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _survey(frames: _Frames) -> tp.Tuple[pitch.Candidates, np.ndarray]:
    """Return the pitch candidates and the power of all frames."""
    # The arrays of the whole file come first: small results between large temporary ones would splinter the heap.
    shape = (frames.count, pitch.CANDIDATES)
    found = pitch.Candidates(*(np.zeros(one, np.float32) for one in (shape, shape, frames.count)))
    power = np.zeros(frames.count, np.float32)
    short = hann(frames.frame_length)[None]
    for part in _blocks(frames.count, _BLOCK):
        chosen = np.arange(part.start, part.stop)
        samples, window = frames.cut(chosen)
        pieces = pitch.find_candidates(samples, window, SAMPLE_RATE)
        for whole, piece in zip(found, pieces, strict=True):
            whole[part] = piece
        samples, inside = gather(frames.emphasized, chosen * frames.hop_length, frames.frame_length)
        power[part] = spectrum.measure_power(samples, short if inside is None else short * inside)
    return found, power


def _measure_widths(frames: _Frames, f0: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    basis = spectrum.make_basis(frames.length, SAMPLE_RATE)
    widths = np.zeros(len(voiced), np.float32)
    for part in _blocks(len(voiced), _BLOCK):
        samples, window = frames.cut(voiced[part])
        widths[part] = spectrum.measure_width(pitch.centre(samples, window) * window, f0[voiced[part]], basis)
    return widths


def _measure_formants(wave: np.ndarray, settings: Settings, voiced: np.ndarray) -> np.ndarray:
    result = np.zeros((len(voiced), 2), np.float32)
    if not len(voiced):
        return result
    ratio = formants.SAMPLE_RATE / SAMPLE_RATE
    low = spectrum.emphasize(soxr.resample(wave, SAMPLE_RATE, formants.SAMPLE_RATE, quality="HQ"), formants.EMPHASIS)
    window = formants.make_window(round(settings.frame_length * ratio))
    for part in _blocks(len(voiced), _BLOCK):
        centres = np.rint(voiced[part] * (settings.hop_length * ratio)).astype(np.int64)
        result[part] = formants.estimate(gather(low, centres, len(window))[0] * window)
    return result
