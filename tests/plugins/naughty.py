"""A model that misbehaves on files whose peak is above 0.8, in the way that `mode` says."""

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import time
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, WholeFile, choice

_FORGED = '{"kind":"finished","time":1.0}\n{"kind":"failed","item":"good_00.wav","model":"naughty"'


def _shout() -> None:
    """Say on every channel what must not be taken for an event."""
    print(_FORGED)
    print("half a line", end="", flush=True)
    os.write(1, _FORGED.encode())
    libc = ctypes.CDLL(None)
    libc.puts(_FORGED.encode())
    libc.fflush(None)
    os.system('echo \'{"kind":"finished"}\'')
    sys.stderr.write(_FORGED)


def _segfault() -> None:
    ctypes.string_at(0)


def _raise() -> None:
    raise RuntimeError("this one\nis too loud")


def _recurse() -> None:
    _recurse()


_DEEDS = {
    "print": _shout,
    "child": lambda: subprocess.run([sys.executable, "-c", "import os; os.write(1, b'{}\\n'); os.write(2, b'{')"]),
    "raise": _raise,
    "recursion": _recurse,
    "segv": _segfault,
    "abort": os.abort,
    "hang": lambda: time.sleep(3600),
    "exit": lambda: sys.exit(0),
    "os_exit": lambda: os._exit(0),
    "os_exit_69": lambda: os._exit(69),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": lambda: np.zeros((1 << 50,), np.uint8),
}


@dataclasses.dataclass
class Naughty(Extractor):
    """Well-behaved below a peak of 0.8."""

    environment = "legacy-py37"
    sample_rate = 16000

    mode: str = choice("none", "nan", "empty", "shape", "missing", "load", "load_segv", "load_slow", *_DEEDS)
    once: tp.Optional[str] = None  # a file: misbehave only until it exists

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `sums` [2]."""
        return (Output("sums", ("feature",), (2,), "sum of squares, peak"),)

    def framing(self) -> WholeFile:
        """Return the whole file."""
        return WholeFile(memory_per_minute=0)

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Fail when told to."""
        if self.mode == "load":
            raise OSError("its weights are damaged")
        if self.mode == "load_segv":
            _segfault()
        if self.mode == "load_slow":
            time.sleep(4)

    def extract(self, batch: Batch) -> Arrays:
        """Return the sums, or misbehave."""
        wave = batch.wave[0, 0].astype(np.float64)
        sums = np.array([[(wave**2).sum(), np.abs(wave).max()]])
        if sums[0, 1] < 0.8 or (self.once and os.path.exists(self.once)):
            return {"sums": sums}
        if self.once:
            open(self.once, "w").close()
        if self.mode in _DEEDS:
            _DEEDS[self.mode]()
        wrong = {
            "nan": {"sums": sums * np.nan},
            "empty": {"sums": sums[:, :0]},
            "shape": {"sums": sums.T},
            "missing": {},
        }
        return wrong.get(self.mode, {"sums": sums})
