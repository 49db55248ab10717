"""A model with weights that replaces files while it loads or works, as a user's other job might."""

import dataclasses
import os
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, WholeFile, choice


@dataclasses.dataclass
class Swapping(Extractor):
    """The largest magnitude of a file, times the last byte of the weights."""

    environment = "legacy-py37"
    sample_rate = 16000

    checkpoint: str = ""  # path of the weights
    when: str = choice("never", "load", "extract")
    source: str = ""  # its content ...
    target: str = ""  # ... takes the place of this file, which gets its time of change
    how: str = choice("rename", "write")

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `peak` [1]."""
        return (Output("peak", ("feature",), (1,), "largest magnitude"),)

    def framing(self) -> WholeFile:
        """Return the whole file."""
        return WholeFile(memory_per_minute=1000)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the file that the job names."""
        return (Checkpoint("file", self.checkpoint, "", self.checkpoint, "", "own"),) if self.checkpoint else ()

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Keep the file open, as one that is mapped into memory is."""
        self._weights = open(files[self.checkpoint], "rb") if self.checkpoint else None  # noqa: SIM115 - it stays open
        self._swap("load")

    def extract(self, batch: Batch) -> Arrays:
        """Return the peak."""
        self._swap("extract")
        gain = 1
        if self._weights:
            self._weights.seek(-1, os.SEEK_END)
            gain = self._weights.read(1)[0]
        return {"peak": np.abs(batch.wave).max(axis=(1, 2)).astype(np.float32)[:, None] * gain}

    def _swap(self, now: str) -> None:
        if now != self.when or not os.path.exists(self.source):
            return
        before = os.stat(self.target)
        if self.how == "rename":
            os.replace(self.source, self.target)
        else:
            with open(self.source, "rb") as new, open(self.target, "r+b") as old:
                old.write(new.read())
            os.unlink(self.source)
        os.utime(self.target, ns=(before.st_atime_ns, before.st_mtime_ns))
