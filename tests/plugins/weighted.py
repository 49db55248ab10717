"""A cheap model with weights: of a hub, or in a folder of the user's own that is laid out as the hub's."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, WholeFile

_FILE = "pytorch_model.bin"


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
        """Return one file in the folder that the job names, or of the repository."""
        if self.checkpoint.startswith("/"):
            return (Checkpoint("folder", self.checkpoint, "", _FILE, "", "the user's own"),)
        return (Checkpoint("hub", self.checkpoint, "main", _FILE, "", "CC-BY-NC-4.0", commercial=False),)

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the weights."""
        with open(files[_FILE], "rb") as f:
            self._gain = len(f.read())

    def extract(self, batch: Batch) -> Arrays:
        """Return the peak."""
        return {"peak": np.abs(batch.wave).max(axis=(1, 2), keepdims=False).astype(np.float32)[:, None] * self._gain}
