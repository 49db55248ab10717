"""Residual vector quantisation: each codebook names what is left by those before it.

N. Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021, algorithm 1.
"""

import torch

from torch_models.encodec.layout import Tensors


class Quantizer:
    """The first codebooks of a checkpoint."""

    def __init__(self, tensors: Tensors, count: int, device: str):
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
