"""Prosodic features of speech, and what is made of them: tokens and an embedding."""

import dataclasses
import os
import typing as tp

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Lesson, Output, WholeFile, between, choice, own_path
from worker.request import Fit

_STATISTICS = 25  # mean and std of six features and of their deltas, and the share of voiced frames
_CLUSTERS = ("kmeans_model.json", "cluster_centers.pt")
_ENCODER = "encoder.pt"
_FITTED = "your own"  # the licence of what a user has trained


@dataclasses.dataclass
class Prosody(Extractor):
    """Pitch, voice quality, formants and loudness of speech, six numbers per frame; no weights.

    Pitch and harmonicity: P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", 1993. Formants: J. Makhoul, "Linear prediction", 1975.

    `consort fit` trains a token model (`clusters`) on the features of a job, and a sequence encoder
    (`encoder`) on the tokens; with them there are `tokens`, and a learned `embedding`. Without an encoder the
    embedding is no learned one but statistics of the features, and of the tokens where there are any.

    Short audio: computed from what is there; silent audio: unvoiced throughout, power at its floor.
    """

    environment = "torch-cuda"
    sample_rate = 16000
    version = 2
    seconds_per_minute = 0.2

    frame_ms: float = between(50.0, 20, 200)  # the pitch sees at least 46 ms, three periods of 65 Hz
    hop_ms: float = between(16.0, 2, 100)
    emphasize_ratio: float = between(0.7, 0, 0.99)  # x[n] - ratio x[n-1] is what `power` sees
    smoothing_level: str = choice("light", "none", "medium", "heavy")
    output_normalize: bool = True  # 0 .. 1 instead of Hz and dB
    clusters: tp.Optional[str] = own_path()  # folder of a token model
    encoder: tp.Optional[str] = own_path()  # folder of an encoder, or its .pt file; needs `clusters`

    def __post_init__(self) -> None:
        if self.encoder is not None and self.clusters is None:
            raise ValueError("encoder: embeds tokens, so it needs `clusters`, the token model that it was fitted with")

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `features` [T, 6], `voiced` [T], `tokens` [T] and `embedding` [D].

        Frames are centred at multiples of the hop. There are tokens where there is a token model.
        """
        frame_rate = self.sample_rate / round(self.hop_ms * self.sample_rate / 1000)
        if self.output_normalize:
            units = "Hz / 450, / 200, / 1500, / 4000, 1 + dB / 80, dB / 40, clipped to 0..1"
        else:
            units = "Hz, Hz, Hz, Hz, dB, dB"
        doc = "f0, f0_width, f1, f2, power, snr (" + units + "); unvoiced: 0 but for power"
        axes = ("time", "feature")
        features = Output("features", axes, (None, 6), doc, poolable=True, frame_rate=frame_rate)
        mask = "1 where there is a pitch, else 0"
        voiced = Output("voiced", ("time",), (None,), mask, "uint8", frame_rate=frame_rate)
        size = _STATISTICS if self.clusters is None else None
        embedding = Output("embedding", ("feature",), (size,), self._kind)
        if self.clusters is None:
            return features, voiced, embedding
        what = "number of the nearest centre of the token model"
        tokens = Output("tokens", ("time",), (None,), what, "int32", frame_rate=frame_rate)
        return features, voiced, tokens, embedding

    def framing(self) -> WholeFile:
        """Return the whole file: pitch is the best path through all frames. Memory is measured."""
        return WholeFile(memory_per_minute=12000000 + 200 * int(60000 / self.hop_ms))

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the user's own models, as far as the wanted outputs need them."""
        if self.clusters is None or not self.request.wants("tokens", "embedding"):
            return ()
        hint = "consort fit JOB"
        found = [Checkpoint("folder", self.clusters, "", file, "", _FITTED, made_by=hint) for file in _CLUSTERS]
        if self.encoder is not None and self.request.wants("embedding"):
            kind = "file" if self._encoder_file == self.encoder else "folder"
            name, file = self.encoder, self._encoder_file
            found.append(Checkpoint(kind, name, "", file, "", _FITTED, made_by=hint + " --stage encoder"))
        return tuple(found)

    def describe(self) -> tp.Dict[str, tp.Any]:
        return {"embedding": self._kind}

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Import the analysis, and read the models that are wanted.

        Raises:
            ValueError: a model is damaged, or was fitted to other features or tokens.
        """
        from prosody_toolkit import features

        self._analyse = features.analyse
        self._settings = self._read_settings()
        if not self.request.wants("tokens", "embedding"):
            return
        from prosody_toolkit import embedding

        models = [files[file] for file in _CLUSTERS] if self.clusters is not None else []
        encoder = files[self._encoder_file] if self.encoder is not None and self.request.wants("embedding") else None
        self._describer = embedding.Describer(self._settings, models, encoder, device)

    def extract(self, batch: Batch) -> Arrays:
        """Return `features` [1, T, 6], `voiced` [1, T], T = 1 + (N - 1) // hop_length, and what is made of them."""
        wave = batch.wave[0, 0, : int(batch.lengths[0])]
        features, voiced = self._analyse(wave, self._settings)
        found = {"features": features, "voiced": voiced}
        if self.request.wants("tokens", "embedding"):
            found.update(self._describer.describe(features, voiced, self.request.wants("embedding")))
        return {name: values[None] for name, values in found.items()}

    def fit(self, asked: Fit, files: tp.Mapping[str, str], lesson: Lesson) -> tp.Dict[str, tp.Any]:
        """Learn a token model (the stage `clusters`) or a sequence encoder (`encoder`), and return its facts."""
        from prosody_toolkit import fitting

        facts: tp.Dict[str, tp.Any] = fitting.run(asked, self._read_settings(), self.request.device, files, lesson)
        return facts

    def _read_settings(self) -> tp.Any:
        from prosody_toolkit import features

        return features.Settings.of_ms(
            self.frame_ms, self.hop_ms, self.emphasize_ratio, self.smoothing_level, self.output_normalize
        )

    @property
    def _kind(self) -> str:
        if self.encoder is not None:
            return "mean state of the trained sequence encoder over the tokens"
        what = "not learned: mean and std of each feature and of its deltas, share of voiced frames"
        return what if self.clusters is None else what + ", share of each token"

    @property
    def _encoder_file(self) -> str:
        """The file of the encoder, as `files` of `load` names it."""
        encoder = self.encoder or ""
        return encoder if os.path.splitext(encoder)[1] == ".pt" else _ENCODER
