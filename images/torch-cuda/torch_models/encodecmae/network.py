"""The encoder of EnCodecMAE, from samples to the activations of its layers."""

import math
import typing as tp

import numpy as np
import torch
from torch.nn import functional

from torch_models import devices
from torch_models.encodecmae.checkpoint import MelCheckpoint, Sizes
from torch_models.encodecmae.log_mel import BANDS, LogMel, count_frames

LONGEST = 96000  # samples of one chunk: 4 s, as in training

_HOP_OF_MASK = 320  # samples: the published model counts frames as EnCodec does, and hides the keys behind them
_ALIGNMENT = 8  # fused attention kernels ask for heads of a multiple of it


class Block(torch.nn.Module):
    """Attention and feed-forward layer with dual residual connections.

    Xie et al., "ResiDual: Transformer with Dual Residual Connections" (2023): one stream is normalised
    after every addition, the other only collects.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        packed = sizes.heads * _pad_head(sizes.head_dim)
        self.heads = sizes.heads
        self.scale = sizes.head_dim**-0.5
        self.project_in = torch.nn.Linear(sizes.dim, 3 * packed, bias=False)
        self.project_out = torch.nn.Linear(packed, sizes.dim, bias=False)
        self.attention_norm = torch.nn.LayerNorm(sizes.dim)
        self.feed_norm = torch.nn.LayerNorm(sizes.dim)

    def forward(
        self, normed: torch.Tensor, plain: torch.Tensor, feed: torch.nn.Module, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both streams `[B, T, D]`; `mask` `[B, 1, 1, T]` is True where a key may be seen."""
        attended = self._attend(normed, mask)
        normed = self.attention_norm(normed + attended)
        fed = feed(normed)
        return self.feed_norm(normed + fed), plain + attended + fed

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        packed = self.project_in(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        return tp.cast(torch.Tensor, self.project_out(found.transpose(1, 2).flatten(2)))


class MaeEncoder(torch.nn.Module):
    """Log mel, positions, and blocks that share one feed-forward layer."""

    positions: torch.Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.log_mel = LogMel()
        self.embed = torch.nn.Linear(BANDS, sizes.dim)
        self.register_buffer("positions", torch.empty(count_frames(LONGEST), sizes.dim))
        self.feed = torch.nn.Sequential(
            torch.nn.Linear(sizes.dim, sizes.hidden), torch.nn.ReLU(), torch.nn.Linear(sizes.hidden, sizes.dim)
        )
        self.blocks = torch.nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = torch.nn.LayerNorm(sizes.dim)

    def forward(self, wave: torch.Tensor, lengths: tp.Sequence[int], layers: tp.Sequence[int]) -> torch.Tensor:
        """Return the activations of some layers.

        Args:
            wave: `[B, N]` at 24 kHz, N <= 96 000, zeros behind the valid samples.
            lengths: valid samples of each row.
            layers: indices from 0, the output of the first block. The last one is the sum of its output
                and the normalised second stream; blocks behind the highest index are not computed.

        Returns:
            `[B, T, L, D]`; frames that are not all within a row's length mean nothing.
        """
        normed = self.embed(self.log_mel(wave))
        normed = normed + self.positions[: normed.shape[1]]
        plain, mask = normed, _make_mask(lengths, normed.shape[1], normed.device)
        kept = {}
        for index in range(max(layers) + 1):
            normed, plain = self.blocks[index](normed, plain, self.feed, mask)
            kept[index] = normed
        last = self.sizes.layers - 1
        if last in kept:
            kept[last] = normed + self.norm(plain)
        return torch.stack([kept[index] for index in layers], dim=2)

    @torch.inference_mode()
    def run_each(self, wave: np.ndarray, lengths: np.ndarray, layers: tp.Sequence[int]) -> np.ndarray:
        """Return float32 `[B, T, L, D]` of `[B, N]`, every row on its own and at its own length.

        A row's bytes depend on nothing but the row. Frames behind its length are zeros.
        """
        result = np.zeros((len(wave), count_frames(wave.shape[1]), len(layers), self.sizes.dim), np.float32)
        for row, samples, length in zip(result, wave, map(int, lengths), strict=True):
            if length:  # a window of no samples only fills the batch
                found = self(torch.tensor(samples[None, :length]), [length], layers)[0]
                row[: len(found)] = found.numpy()
        return result

    @torch.inference_mode()
    def run_together(self, wave: np.ndarray, lengths: np.ndarray, layers: tp.Sequence[int]) -> np.ndarray:
        """Return the same in one pass, equal but for rounding; for devices that want large batches."""
        samples = torch.tensor(wave).to(self.positions.device)
        found: np.ndarray = self(samples, lengths.tolist(), layers).cpu().numpy()
        return found


def load(path: str, device: str) -> MaeEncoder:
    """Return the encoder with the weights of a published file.

    Raises:
        ValueError: the file is not what it should be.
    """
    checkpoint = MelCheckpoint(path)
    with torch.device("meta"):  # nothing is drawn at random that would be replaced at once
        network = MaeEncoder(checkpoint.sizes)
    network.log_mel = LogMel()
    network.load_state_dict(_convert(checkpoint), assign=True)
    devices.switch_off_tf32()
    return network.to(device).eval().requires_grad_(False)


def _convert(checkpoint: MelCheckpoint) -> dict[str, torch.Tensor]:
    """Return the tensors under our names, with the heads packed as fused attention reads them."""
    layers, dim, _, _, hidden = sizes = checkpoint.sizes
    feed = "ff_layer.{}".format
    scale = checkpoint.take("masker.positional_encoder.scale")
    weights = {
        "embed.weight": checkpoint.take("wav_encoder.post_net.weight", dim, BANDS),
        "embed.bias": checkpoint.take("wav_encoder.post_net.bias", dim),
        "positions": scale * _make_positions(count_frames(LONGEST), dim),
        "norm.weight": checkpoint.take("visible_encoder.final_norm.weight", dim),
        "norm.bias": checkpoint.take("visible_encoder.final_norm.bias", dim),
        # One layer under the names of all: the file repeats it, and who reads it in order keeps the last.
        "feed.0.weight": checkpoint.take_layer(layers - 1, feed("0.weight"), hidden, dim),
        "feed.0.bias": checkpoint.take_layer(layers - 1, feed("0.bias"), hidden),
        "feed.2.weight": checkpoint.take_layer(layers - 1, feed("2.weight"), dim, hidden),
        "feed.2.bias": checkpoint.take_layer(layers - 1, feed("2.bias"), dim),
    }
    for index in range(layers):
        weights.update(_convert_block(checkpoint, sizes, index))
    return weights


def _convert_block(checkpoint: MelCheckpoint, sizes: Sizes, index: int) -> dict[str, torch.Tensor]:
    rows, dim = sizes.heads * sizes.head_dim, sizes.dim
    inward = [checkpoint.take_layer(index, f"att_layer.w{one}.weight", rows, dim) for one in "qkv"]
    outward = checkpoint.take_layer(index, "att_layer.wo.weight", dim, rows)
    weights = {
        "project_in.weight": torch.cat([_pack_heads(one, sizes) for one in inward]),
        "project_out.weight": _pack_heads(outward.T, sizes).T.contiguous(),
    }
    for ours, theirs in (("attention_norm", "norm1"), ("feed_norm", "norm2")):
        for part in ("weight", "bias"):
            weights[f"{ours}.{part}"] = checkpoint.take_layer(index, f"{theirs}.{part}", dim)
    return {f"blocks.{index}.{name}": tensor for name, tensor in weights.items()}


def _pack_heads(matrix: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """Return `[heads * padded, D]` of `[head_dim * heads, D]`: one head after the other, filled up with zeros.

    Zeros in queries and keys leave every product alone, and zeros in values meet zeros on the way out.
    """
    heads = matrix.unflatten(0, (sizes.head_dim, sizes.heads)).transpose(0, 1)
    return functional.pad(heads, (0, 0, 0, _pad_head(sizes.head_dim) - sizes.head_dim)).flatten(0, 1)


def _pad_head(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _make_positions(count: int, dim: int) -> torch.Tensor:
    """Return sines and cosines in turn, `[count, dim]`: Vaswani et al., "Attention is all you need", 3.5."""
    rates = torch.exp(torch.arange(0, dim, 2).float() * -(math.log(10000) / dim))
    angles = torch.arange(count).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _make_mask(lengths: tp.Sequence[int], frames: int, device: torch.device) -> torch.Tensor | None:
    """Return `[B, 1, 1, T]`, True at the frames that are seen; None where all are.

    A row of more than 2 s may lose its last frame as a key to the published model's count.
    """
    seen = [max(1, min(count_frames(length), length // _HOP_OF_MASK)) for length in lengths]
    if min(seen) >= frames:
        return None
    return (torch.arange(frames) < torch.tensor(seen)[:, None])[:, None, None].to(device)
