"""A model whose framework fails on a GPU, and on nothing else, with the words that a job gives it."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, Windows, choice


@dataclasses.dataclass
class Failing(Extractor):
    """The level of each tenth of a second."""

    environment = "own_gpu"
    sample_rate = 16000
    batch_size = gpu_batch_size = 8

    says: str = ""
    at: str = choice("never", "load", "extract", "load everywhere")
    most: int = 0  # windows that fit into the memory of the GPU

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `level` [T]."""
        return (Output("level", ("time",), (None,), "root mean square", frame_rate=10.0),)

    def framing(self) -> Windows:
        """Return windows of 0.1 s."""
        return Windows(1600, 1600, tail="pad")

    def uses_gpu(self) -> bool:
        """Return True."""
        return True

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Fail when told to."""
        self._device = device
        if self.at == "load everywhere" or (self.at == "load" and device == "cuda"):
            raise RuntimeError(self.says)

    def extract(self, batch: Batch) -> Arrays:
        """Return one frame per window, or fail."""
        if self.at == "extract" and self._device == "cuda" and len(batch.lengths) > self.most:
            raise RuntimeError(self.says)
        return {"level": np.sqrt((batch.wave[:, 0].astype(np.float64) ** 2).mean(1))[:, None]}
