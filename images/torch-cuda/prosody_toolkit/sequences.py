"""From audio to sequences of tokens.

::

    extractor = ProsodicClusterSequences("models/clusters", max_duration=30)
    audio = extractor.resample_waveform(audio, sample_rate)
    sequences = extractor.extract_cluster_sequences(audio)  # [[45, 67, 23, ...]]
"""

import typing as tp

import numpy as np
import soxr
import torch
from torch.nn.utils.rnn import pad_sequence

from prosody_toolkit import cluster_files, clustering, devices, features
from prosody_toolkit.extraction import Waveform, floats

Waves = tp.Union[Waveform, tp.Sequence[np.ndarray], tp.Sequence[torch.Tensor]]
Lengths = tp.Union[tp.Sequence[int], np.ndarray, torch.Tensor]
Tokens = tp.List[tp.List[int]]
Distances = tp.List[tp.List[float]]


class ProsodicClusterSequences:
    """Turns waveforms into tokens of a fitted model, with the features that it was fitted to."""

    def __init__(
        self, prosodic_cluster_model_dir: str, max_duration: tp.Optional[float] = 10, device: str = "cpu"
    ) -> None:
        """Read the token model.

        Args:
            prosodic_cluster_model_dir: folder that `ClusteringPipeline.train` or `consort fit` wrote.
            max_duration: longest audio in seconds that is accepted; None: any. Nothing is ever cut off.
            device: where the nearest centres are looked for; features are computed on the CPU.

        Raises:
            FileNotFoundError, ValueError: the model is missing, damaged, or of other features.
        """
        if max_duration is not None and not max_duration > 0:
            raise ValueError(f"max_duration: {max_duration} is no duration in seconds")
        self.device = devices.choose(device)
        self.model = cluster_files.load(prosodic_cluster_model_dir)
        fitted = self.model.features
        given = features.define(fitted.settings() if fitted else None)
        features.refuse_others(fitted, given, prosodic_cluster_model_dir)
        self.max_duration = max_duration
        self.sample_rate = given.sample_rate
        self._settings = given.settings()

    def resample_waveform(self, waveform: Waveform, sample_rate: int) -> torch.Tensor:
        """Return `[N]` or `[C, N]` as mono float32 `[1, N]` at the model's 16 kHz (soxr HQ), channels averaged."""
        wave = floats(waveform)
        if wave.ndim not in (1, 2) or not wave.size or sample_rate <= 0:
            raise ValueError(f"expected audio [N] or [C, N] and its rate, got {list(wave.shape)} at {sample_rate} Hz")
        mono = wave if wave.ndim == 1 else wave.mean(0)
        if sample_rate != self.sample_rate:
            mono = soxr.resample(mono, sample_rate, self.sample_rate, quality="HQ")
        return torch.from_numpy(np.array(mono, np.float32))[None]

    def prepare_audio_batch(
        self, audio: Waves, lengths: tp.Optional[Lengths] = None
    ) -> tp.Tuple[torch.Tensor, torch.Tensor]:
        """Return audio float32 `[B, N]`, zero behind its end, and the lengths int64 `[B]` in samples.

        Args:
            audio: `[N]`, `[B, N]`, or a list of waveforms `[N]` or `[1, N]`; mono, at 16 kHz.
            lengths: samples of each that are real; None: all.

        Raises:
            ValueError: empty, not finite, too long, or lengths that do not fit.
        """
        single = isinstance(audio, (np.ndarray, torch.Tensor)) and audio.ndim == 1
        waves = [_flat(wave) for wave in tp.cast("tp.Sequence[Waveform]", [audio] if single else audio)]
        counts = [len(wave) for wave in waves] if lengths is None else [int(length) for length in lengths]
        if not waves or len(counts) != len(waves):
            raise ValueError(f"got {len(waves)} waveforms and {len(counts)} lengths")
        for number, (wave, count) in enumerate(zip(waves, counts, strict=True)):
            if not 1 <= count <= len(wave):
                raise ValueError(f"waveform {number}: {count} samples are asked for, {len(wave)} are there")
            if not np.isfinite(wave[:count]).all():
                raise ValueError(f"waveform {number}: holds NaN or infinity")
            if self.max_duration is not None and count > self.max_duration * self.sample_rate:
                raise ValueError(
                    f"waveform {number}: {count / self.sample_rate:.1f} s are longer than max_duration="
                    f"{self.max_duration:g}; raise it, or cut the audio into pieces"
                )
        parts = [torch.from_numpy(wave[:count].copy()) for wave, count in zip(waves, counts, strict=True)]
        return pad_sequence(parts, batch_first=True), torch.tensor(counts)

    @tp.overload
    def extract_cluster_sequences(
        self, audio: Waves, lengths: tp.Optional[Lengths] = None, return_distances: tp.Literal[False] = False
    ) -> Tokens: ...

    @tp.overload
    def extract_cluster_sequences(
        self, audio: Waves, lengths: tp.Optional[Lengths] = None, *, return_distances: tp.Literal[True]
    ) -> tp.Tuple[Tokens, Distances]: ...

    def extract_cluster_sequences(
        self, audio: Waves, lengths: tp.Optional[Lengths] = None, return_distances: bool = False
    ) -> tp.Union[Tokens, tp.Tuple[Tokens, Distances]]:
        """Return the tokens of each waveform, one per frame of 16 ms: `1 + (N - 1) // hop_length` of them.

        A waveform's tokens depend on its own samples alone, whatever else is in the batch. For `audio` and `lengths`
        see `prepare_audio_batch`; `return_distances` adds the distance of each frame to its centre.
        """
        batch, counts = self.prepare_audio_batch(audio, lengths)
        tokens: Tokens = []
        distances: Distances = []
        for wave, count in zip(batch.numpy(), counts.tolist(), strict=True):
            vectors = features.analyse(wave[:count], self._settings)[0]
            nearest, distance = clustering.predict(self.model, vectors, self.device)
            tokens.append(nearest.tolist())
            distances.append(distance.tolist())
        return (tokens, distances) if return_distances else tokens


def _flat(wave: Waveform) -> np.ndarray:
    """Return one waveform `[N]` of `[N]` or `[1, N]`."""
    found = floats(wave)
    if found.ndim == 2 and len(found) == 1:
        found = found[0]
    if found.ndim != 1:
        raise ValueError(f"expected mono audio [N], got {list(found.shape)}; see resample_waveform")
    return found
