"""A cheap tokeniser for tests: how loud each tenth of a second of a window is, in sixteen steps."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, Windows

_STEP = 1600  # samples


@dataclasses.dataclass
class Tokens(Extractor):
    """Loudness as tokens [1, T]; with `window:` and layout per-window one array per window."""

    environment = "legacy-py37"
    sample_rate = 16000
    takes_window = True

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `codes` and `starts`, the seconds at which windows begin."""
        rate = self.sample_rate / _STEP
        if self.request.layout == "per-window":
            codes = Output("codes", ("window", "codebook", "time"), (None, 1, None), "steps", "int16", frame_rate=rate)
        else:
            codes = Output("codes", ("codebook", "time"), (1, None), "steps", "int16", frame_rate=rate)
        return codes, Output("starts", ("chunk",), (None,), "seconds")

    def framing(self) -> Windows:
        """Return windows of a second, or of what the job says."""
        window = self.request.window
        seconds = window.seconds if window else 1.0
        hop = (window.hop_seconds if window else None) or seconds
        return Windows(int(seconds * 16000), int(hop * 16000), tail="keep")

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Load nothing."""

    def extract(self, batch: Batch) -> Arrays:
        """Return the steps of every window [B, 1, 1, T], and its start [B, 1]."""
        level = np.abs(batch.wave[:, 0]).reshape(len(batch.wave), -1, _STEP).max(2)
        starts = (batch.starts / self.sample_rate).astype(np.float32)
        return {"codes": np.minimum(15, level * 16).astype(np.int16)[:, None, None], "starts": starts[:, None]}

    def finish(self, frames: Arrays) -> Arrays:
        """Return codes `[1, T]`, or `[window, 1, T]`."""
        codes = frames["codes"]
        return dict(frames, codes=codes if self.request.layout == "per-window" else np.concatenate(list(codes), axis=1))
