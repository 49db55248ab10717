"""A cheap model for tests: the level of each tenth of a second. No framework, no weights."""

import dataclasses
import time
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, Windows

_WINDOW = 1600  # samples


@dataclasses.dataclass
class Tone(Extractor):
    """Root mean square and mean magnitude of windows of 0.1 s."""

    environment = "legacy-py37"
    sample_rate = 16000
    batch_size = 16
    seconds_per_minute = 600.0  # a lie, so that a few short files make several shards

    pause: float = 0.0  # seconds per batch, to have time to kill it
    gain: float = 1.0  # changes the numbers

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `level` [T, 2], and `peak` [T]."""
        rate = self.sample_rate / _WINDOW
        level = Output("level", ("time", "feature"), (None, 2), "rms, mean", poolable=True, frame_rate=rate, start=0.05)
        return level, Output("peak", ("time",), (None,), "largest magnitude", frame_rate=rate, start=0.05)

    def framing(self) -> Windows:
        """Return windows of 0.1 s, the last one padded."""
        return Windows(_WINDOW, _WINDOW, tail="pad")

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Load nothing."""

    def extract(self, batch: Batch) -> Arrays:
        """Return one frame per window."""
        time.sleep(self.pause)
        wave = np.abs(batch.wave[:, 0].astype(np.float64)) * self.gain
        level = np.stack([np.sqrt((wave**2).mean(1)), wave.mean(1)], 1)
        return {"level": level[:, None], "peak": wave.max(1)[:, None]}
