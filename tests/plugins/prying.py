"""Models for tests of containers: one that tries what it must not be able to do, one that takes memory."""

import dataclasses
import os
import socket
import tempfile
import time
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, WholeFile, Windows


def _works(deed: tp.Callable[[], tp.Any]) -> float:
    try:
        deed()
    except OSError:
        return 0.0
    return 1.0


def _write(path: str) -> None:
    with open(path, "w") as f:
        f.write("x")


def _connect() -> None:
    socket.create_connection(("192.0.2.1", 80), timeout=2).close()  # an address that belongs to nobody


@dataclasses.dataclass
class Prying(Extractor):
    """What it could do, 1 or 0, and as whom."""

    environment = "legacy-py37"
    sample_rate = 16000
    pause: float = 0.0  # seconds, to have time to look at its container

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `found` [7]."""
        doc = "writes to the audio, the weights, the root; connects; has /tmp; user, group"
        return (Output("found", ("feature",), (7,), doc),)

    def framing(self) -> WholeFile:
        """Return the whole file."""
        return WholeFile(memory_per_minute=0)

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Load nothing."""

    def extract(self, batch: Batch) -> Arrays:
        """Try everything."""
        time.sleep(self.pause)
        folders = (os.environ["CONSORT_AUDIO"], os.environ["CONSORT_WEIGHTS"], "/", "/opt/consort/worker")
        writes = [_works(lambda folder=folder: _write(os.path.join(folder, "written"))) for folder in folders]
        found = [
            *writes[:2],
            max(writes[2:]),
            _works(_connect),
            _works(lambda: _write(os.path.join(tempfile.gettempdir(), "x"))),
            os.getuid(),
            os.getgid(),
        ]
        return {"found": np.array([found], np.float32)}


@dataclasses.dataclass
class Hungry(Extractor):
    """The level of each second; every window of a batch takes 64 MB for a moment."""

    environment = "legacy-py37"
    sample_rate = 16000

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `level` [T]."""
        return (Output("level", ("time",), (None,), "root mean square", frame_rate=1.0),)

    def framing(self) -> Windows:
        """Return windows of a second."""
        return Windows(16000, 16000, tail="pad")

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Load nothing."""

    def extract(self, batch: Batch) -> Arrays:
        """Return one frame per window."""
        eaten = np.ones((len(batch.lengths), 8 << 20))  # float64
        level = np.sqrt((batch.wave[:, 0].astype(np.float64) ** 2).mean(1)) * eaten[:, -1]
        return {"level": level[:, None]}


@dataclasses.dataclass
class Graphic(Extractor):
    """The level of the file, from a model that would use a GPU."""

    environment = "torch-cuda"
    sample_rate = 16000

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `level` [1]."""
        return (Output("level", ("feature",), (1,), "root mean square"),)

    def framing(self) -> WholeFile:
        """Return the whole file."""
        return WholeFile(memory_per_minute=0)

    def uses_gpu(self) -> bool:
        """Return True."""
        return True

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Load nothing."""

    def extract(self, batch: Batch) -> Arrays:
        """Return the level."""
        return {"level": np.sqrt((batch.wave.astype(np.float64) ** 2).mean((1, 2)))[:, None]}
