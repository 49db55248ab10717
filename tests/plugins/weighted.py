"""A cheap model with weights of the user's own, in a folder, as those of a hub are."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, WholeFile


@dataclasses.dataclass
class Weighted(Extractor):
    """The largest magnitude of a file, times the length of the weights."""

    environment = "legacy-py37"
    sample_rate = 16000

    checkpoint: str = "none"

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `peak` [1]."""
        return (Output("peak", ("feature",), (1,), "largest magnitude"),)

    def framing(self) -> WholeFile:
        """Return the whole file."""
        return WholeFile(memory_per_minute=1000)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return one file in the folder that the job names."""
        return (Checkpoint("folder", self.checkpoint, "", "w.bin", "", "the user's own"),)

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the weights."""
        with open(files["w.bin"], "rb") as f:
            self._gain = len(f.read())

    def extract(self, batch: Batch) -> Arrays:
        """Return the peak."""
        return {"peak": np.abs(batch.wave).max(axis=(1, 2), keepdims=False).astype(np.float32)[:, None] * self._gain}
