"""From arrays of audio to arrays of latents and codes: an encoder and a quantiser of one checkpoint."""

import typing as tp

import numpy as np
import torch

from torch_models import devices
from torch_models.encodec import layout
from torch_models.encodec.encoder import Encoder, State

CHUNK, STRIDE = 48000, 47520  # samples: the 48 kHz model hears one second, and the next one begins 1 % earlier


class Frames(tp.NamedTuple):
    """What a batch of audio became; zeros behind the frames of a row that is not full."""

    latents: np.ndarray  # float32 [B, D, T]
    codes: np.ndarray | None  # int16 [B, K, T]; None where there is no quantiser
    scale: np.ndarray  # float32 [B], what the audio was divided by


class Quantizer:
    """Residual vector quantisation by the first codebooks: each names what is left by those before it.

    N. Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021, algorithm 1.
    """

    def __init__(self, tensors: layout.Tensors, count: int, device: str):
        """Take `count` codebooks out of the tensors under `quantizer.layers.`."""
        self._codebooks = [tensors[f"{i}.codebook.embed"].to(device) for i in range(count)]
        self._squares = [codebook.t().pow(2).sum(0, keepdim=True) for codebook in self._codebooks]

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the indices int16 `[B, K, T]` of latents `[B, D, T]`.

        The squared distance is expanded as upstream does, so that even near ties fall the same way.
        """
        left = latents.transpose(1, 2)
        found = []
        for codebook, squares in zip(self._codebooks, self._squares, strict=True):
            rows = left.reshape(-1, left.shape[2])
            distance = rows.pow(2).sum(1, keepdim=True) - 2 * rows @ codebook.t() + squares
            nearest = (-distance).max(dim=-1).indices.view(left.shape[:2])
            left = left - torch.nn.functional.embedding(nearest, codebook)
            found.append(nearest.to(torch.int16))
        return torch.stack(found, 1)


class Codec:
    """A loaded checkpoint. On a CPU rows run one by one: no bit of a result depends on its neighbours."""

    def __init__(self, settings: layout.EncodecConfig, encoder: Encoder, quantizer: Quantizer | None, device: str):
        self._settings = settings
        self._encoder = encoder
        self._quantizer = quantizer
        self._device = device

    @torch.inference_mode()
    def encode_block(self, wave: np.ndarray, state: State, warm_up: int) -> Frames:
        """Return the frames of the next block of a stream; see `Encoder.encode_block`."""
        latents = self._encoder.encode_block(self._take(wave), state, warm_up)
        return Frames(latents.cpu().numpy(), self._quantize(latents), np.ones(1, np.float32))

    @torch.inference_mode()
    def encode(self, wave: np.ndarray, lengths: np.ndarray) -> Frames:
        """Return the frames of rows that know nothing of each other.

        Args:
            wave: float32 `[B, C, N]`; one channel is doubled for a model that hears two.
            lengths: int `[B]`, how much of each row is audio; the model sees nothing of the rest.
        """
        rows, frames = len(wave), count_frames(wave.shape[2])
        latents = np.zeros((rows, self._settings.hidden_size, frames), np.float32)
        scale = np.zeros(rows, np.float32)
        codes = None
        for group in self._group(lengths):
            length = int(lengths[group[0]])
            x, scale[group] = self._normalize(self._take(wave[group, :, :length]))
            found = self._encoder.encode(x)
            latents[group, :, : found.shape[2]] = found.cpu().numpy()
            names = self._quantize(found)
            if names is not None:
                codes = np.zeros((rows, names.shape[1], frames), np.int16) if codes is None else codes
                codes[group, :, : names.shape[2]] = names
        return Frames(latents, codes, scale)

    def encode_pieces(self, wave: np.ndarray, here: np.ndarray) -> Frames:
        """Return the frames of long rows `[B, C, N]` as the whole model gives them, the 48 kHz one piece by piece.

        `here` is int `[B]`, 0 for a row that only fills the batch, else 1.
        """
        size = wave.shape[2]
        step, length = (STRIDE, CHUNK) if self._settings.chunking else (size, size)
        pieces = [wave[:, :, begin : begin + length] for begin in range(0, size, step)]
        found = [self.encode(piece, here * piece.shape[2]) for piece in pieces]
        latents = np.concatenate([one.latents for one in found], 2)
        codes = None if self._quantizer is None else np.concatenate([one.codes for one in found], 2)
        return Frames(latents, codes, found[0].scale)

    def _group(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return which rows run together: each alone on a CPU, those of equal length on a GPU."""
        if self._device == "cpu":
            return [np.array([row]) for row in np.flatnonzero(lengths)]
        return [np.flatnonzero(lengths == length) for length in np.unique(lengths) if length]

    def _take(self, wave: np.ndarray) -> torch.Tensor:
        x = torch.tensor(wave, device=self._device)
        return x.expand(-1, self._settings.audio_channels, -1) if x.shape[1] == 1 else x

    def _normalize(self, x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        """Return audio of equal loudness, and what it was divided by: its RMS `[B]`, where the model wants that."""
        if not self._settings.normalize:
            return x, np.ones(len(x), np.float32)
        mono = torch.sum(x, 1, keepdim=True) / x.shape[1]
        scale = mono.pow(2).mean(dim=-1, keepdim=True).sqrt() + 1e-8
        return x / scale, scale[:, 0, 0].cpu().numpy()

    def _quantize(self, latents: torch.Tensor) -> np.ndarray | None:
        return None if self._quantizer is None else self._quantizer.encode(latents).cpu().numpy()


def count_frames(samples: int) -> int:
    """Return how many frames so many samples give; the last one need not be full."""
    return -(-samples // layout.HOP)


def load(config: str, weights: str, device: str, sample_rate: int, bandwidth: float, quantize: bool) -> Codec:
    """Bring a checkpoint into memory, without its decoder.

    Args:
        config: path of `config.json`.
        weights: path of `model.safetensors`.
        device: "cpu" or "cuda".
        sample_rate: in Hz, that the name of the folder promises.
        bandwidth: in kbit/s.
        quantize: whether codes are wanted at all.

    Raises:
        ValueError: the checkpoint is damaged, or is not what its name and the parameters promise.
    """
    settings = layout.read_settings(config)
    layout.check_family(config, settings, sample_rate, bandwidth)
    devices.switch_off_tf32()
    try:
        encoder = Encoder(settings, layout.read_tensors(weights, "encoder.layers."), device)
        quantizer = None
        if quantize:
            tensors = layout.read_tensors(weights, "quantizer.layers.")
            quantizer = Quantizer(tensors, settings.count_codebooks(bandwidth), device)
    except KeyError as error:
        raise ValueError(f"{weights}: has no tensor {error}; config.json belongs to another file") from None
    except RuntimeError as error:
        raise ValueError(f"{weights}: {' '.join(str(error).split())}; config.json belongs to another file") from None
    return Codec(settings, encoder, quantizer, device)
