"""Prosodic features of speech."""

import dataclasses
import typing as tp

from worker.extractor import Arrays, Batch, Extractor, Output, WholeFile, between, choice


@dataclasses.dataclass
class Prosody(Extractor):
    """Pitch, voice quality, formants and loudness of speech, six numbers per frame; no weights.

    Pitch and harmonicity: P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", 1993. Formants: J. Makhoul, "Linear prediction", 1975.

    Short audio: computed from what is there; silent audio: unvoiced throughout, power at its floor.
    """

    environment = "torch-cuda"
    sample_rate = 16000
    seconds_per_minute = 0.25

    frame_ms: float = between(50.0, 20, 200)  # the pitch sees at least 46 ms, three periods of 65 Hz
    hop_ms: float = between(16.0, 2, 100)
    emphasize_ratio: float = between(0.7, 0, 0.99)  # x[n] - ratio x[n-1] is what `power` sees
    smoothing_level: str = choice("light", "none", "medium", "heavy")
    output_normalize: bool = True  # 0 .. 1 instead of Hz and dB

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `features` [T, 6] and `voiced` [T]; frames are centred at multiples of the hop."""
        frame_rate = self.sample_rate / self._samples(self.hop_ms)
        if self.output_normalize:
            units = "Hz / 450, / 200, / 1500, / 4000, 1 + dB / 80, dB / 40, clipped to 0..1"
        else:
            units = "Hz, Hz, Hz, Hz, dB, dB"
        doc = "f0, f0_width, f1, f2, power, snr (" + units + "); unvoiced: 0 but for power"
        axes = ("time", "feature")
        features = Output("features", axes, (None, 6), doc, poolable=True, frame_rate=frame_rate)
        mask = "1 where there is a pitch, else 0"
        return features, Output("voiced", ("time",), (None,), mask, "uint8", frame_rate=frame_rate)

    def framing(self) -> WholeFile:
        """Return the whole file: pitch is the best path through all frames. Memory is measured."""
        return WholeFile(memory_per_minute=12000000 + 200 * int(60000 / self.hop_ms))

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Import the analysis; there are no weights."""
        from torch_models.prosody import features

        self._analyse = features.analyse
        self._device = device
        self._settings = features.Settings(
            frame_length=self._samples(self.frame_ms),
            hop_length=self._samples(self.hop_ms),
            emphasize_ratio=self.emphasize_ratio,
            smoothing_level=self.smoothing_level,
            output_normalize=self.output_normalize,
        )

    def extract(self, batch: Batch) -> Arrays:
        """Return `features` [1, T, 6] and `voiced` [1, T] with T = 1 + (N - 1) // hop_length."""
        wave = batch.wave[0, 0, : int(batch.lengths[0])]
        features, voiced = self._analyse(wave, self._settings, self._device)
        return {"features": features[None], "voiced": voiced[None]}

    def _samples(self, milliseconds: float) -> int:
        return round(milliseconds * self.sample_rate / 1000)
