"""The six features of one recording, in a class for notebooks.

::

    extractor = ProsodicFeatureExtractor()
    audio_tensor = extractor.load_audio("speech.wav")
    features = extractor.extract(start_ms=1000, end_ms=5000)
    extractor.plot_features(features, "speech.png")
"""

import os
import pathlib
import tempfile
import typing as tp

import numpy as np
import soxr
import torch

from prosody_toolkit import features, plots, smoothing
from worker.audio.decode import decode

LOADERS = ("librosa", "soundfile", "ffmpeg", "auto")

Waveform = tp.Union[np.ndarray, torch.Tensor]
Features = tp.Dict[str, np.ndarray]


class ProsodicFeatureExtractor:
    """Pitch, its width, two formants, power and harmonicity of speech; see `features` for formulas and units."""

    def __init__(
        self,
        sample_rate: int = 16000,
        frame_ms: float = 50,
        hop_ms: float = 16,
        emphasize_ratio: float = 0.7,
        output_normalize: bool = True,
        smoothing_level: str = "light",
    ) -> None:
        """Set the analysis.

        Args:
            sample_rate: of the audio that `extract` is given, in Hz; the analysis itself is done at 16 kHz.
            frame_ms: length of a frame; pitch sees at least three periods of 65 Hz, 46 ms.
            hop_ms: from the centre of one frame to that of the next.
            emphasize_ratio: coefficient of the pre-emphasis in front of `power`.
            output_normalize: values of 0 .. 1 in place of Hz and dB.
            smoothing_level: none, light, medium or heavy.
        """
        if smoothing_level not in smoothing.SPANS:
            raise ValueError(f"smoothing_level: {smoothing_level!r} is not one of {', '.join(smoothing.SPANS)}")
        if not 0 < hop_ms <= 1000 or not 0 < frame_ms <= 1000 or sample_rate < 1000:
            raise ValueError("sample_rate must be at least 1000 Hz, frame_ms and hop_ms lie above 0 and below 1000")
        self.sample_rate = sample_rate
        self.voiced = np.zeros(0, np.uint8)  # [T] of the last `extract`: 1 where there is a pitch
        self._wave: tp.Optional[np.ndarray] = None  # what `load_audio` has read
        self._part: tp.Optional[tp.Tuple[np.ndarray, float]] = None  # what `extract` saw, and its start in seconds
        self._settings = features.Settings.of_ms(frame_ms, hop_ms, emphasize_ratio, smoothing_level, output_normalize)

    @property
    def frame_rate(self) -> float:
        """Frames per second: 62.5 for a hop of 16 ms."""
        return features.SAMPLE_RATE / self._settings.hop_length

    @property
    def definition(self) -> features.FeatureDefinition:
        """What the features are, for `ClusteringPipeline(features=...)`: tokens need the same ones again."""
        return features.define(self._settings)

    def load_audio(self, path: tp.Union[str, "os.PathLike[str]"], loader: str = "librosa") -> torch.Tensor:
        """Return the mono audio of a file, float32 `[N]` at `sample_rate`, and keep it for `extract`.

        Args:
            path: any format that soundfile or ffmpeg reads.
            loader: known names are librosa, soundfile, ffmpeg and auto. All of them mean the decoder of the
                workers: soundfile, then ffmpeg where that cannot read the file or reads it short.

        Raises:
            ValueError: an unknown loader.
            worker.errors.AudioError: the file cannot be read; the message says why.
        """
        if loader not in LOADERS:
            raise ValueError(f"loader: {loader!r} is not one of {', '.join(LOADERS)}")
        wanted = [(self.sample_rate, 1)]
        with tempfile.TemporaryDirectory() as scratch, decode(os.fspath(path), wanted, scratch) as decoded:
            self._wave = np.array(decoded.wave(self.sample_rate, 1)[0], np.float32)
        return torch.from_numpy(self._wave)

    def extract(self, start_ms: float = 0, end_ms: float = -1, audio_tensor: tp.Optional[Waveform] = None) -> Features:
        """Return f0, f0_width, f1, f2, power and snr, each float32 `[T]`, in this order.

        Args:
            start_ms: where to begin.
            end_ms: where to end; negative: at the end of the audio.
            audio_tensor: `[N]` or `[1, N]` at `sample_rate`; None takes what `load_audio` has read.

        Raises:
            ValueError: no audio, an empty range, or samples that are not finite.
        """
        part = wave = self._cut(self._given(audio_tensor), start_ms, end_ms)
        if self.sample_rate != features.SAMPLE_RATE:
            wave = soxr.resample(wave, self.sample_rate, features.SAMPLE_RATE, quality="HQ")
        if not len(wave):
            raise ValueError(f"the audio is too short: nothing is left of it at {features.SAMPLE_RATE} Hz")
        values, self.voiced = features.analyse(wave, self._settings)
        self._part = part, max(0.0, start_ms) / 1000
        return {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(features.NAMES)}

    def get_frames_count(self, signal_length: int) -> int:
        """Return how many frames `signal_length` samples at `sample_rate` give: `1 + (N - 1) // hop` at 16 kHz."""
        if signal_length < 1:
            return 0
        samples = int(signal_length * features.SAMPLE_RATE / self.sample_rate + 0.5)  # as soxr rounds
        return 1 + (samples - 1) // self._settings.hop_length if samples else 0

    def plot_features(self, values: Features, save_path: tp.Union[str, "os.PathLike[str]"]) -> pathlib.Path:
        """Draw the features, PNG or SVG; under waveform and spectrogram where the audio is still here.

        Args:
            values: from `extract`.
            save_path: ends in .png or .svg.
        """
        known = [self._part or (None, 0.0), (self._wave, 0.0)]
        fits = [k for k in known if k[0] is not None and self.get_frames_count(len(k[0])) == len(values["f0"])]
        wave, start = fits[0] if fits else (None, 0.0)
        normalized = self._settings.output_normalize
        return plots.draw_features(values, save_path, self.frame_rate, normalized, wave, self.sample_rate, start=start)

    def _given(self, audio_tensor: tp.Optional[Waveform]) -> np.ndarray:
        wave = self._wave if audio_tensor is None else floats(audio_tensor)
        if wave is None:
            raise ValueError("no audio: call load_audio, or give audio_tensor")
        if wave.ndim not in (1, 2) or (wave.ndim == 2 and len(wave) != 1):
            raise ValueError(f"audio_tensor: expected [N] or [1, N], got {list(np.shape(wave))}")
        if not np.isfinite(wave).all():
            raise ValueError("audio_tensor: has samples that are not finite")
        return wave.reshape(-1)

    def _cut(self, wave: np.ndarray, start_ms: float, end_ms: float) -> np.ndarray:
        start = round(max(0.0, start_ms) * self.sample_rate / 1000)
        end = len(wave) if end_ms < 0 else min(len(wave), round(end_ms * self.sample_rate / 1000))
        if start >= end:
            length = 1000 * len(wave) / self.sample_rate
            raise ValueError(f"nothing between {start_ms} and {end_ms} ms: the audio lasts {length:.0f} ms")
        return wave[start:end]


def floats(wave: Waveform) -> np.ndarray:
    """Return samples as float32.

    Raises:
        ValueError: integers, whose full scale nobody has said.
    """
    found = wave.detach().cpu().numpy() if isinstance(wave, torch.Tensor) else np.asarray(wave)
    if found.dtype.kind != "f":
        raise ValueError(f"audio of {found.dtype}: divide it by its full scale, 32768 for int16")
    return found.astype(np.float32, copy=False)
