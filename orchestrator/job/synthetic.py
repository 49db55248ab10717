"""A sine for jobs that say `audio: synthetic`: something to try a model on when there is no audio at hand."""

import pathlib
import struct

import numpy as np

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.job.spec import SYNTHETIC, JobSpec

_SECONDS = 3.0
_PITCH = 440.0  # Hz
_PEAK = 0.5


def path(job: JobSpec) -> pathlib.Path:
    """Return where the sine is: among the arrays of the first model, at its sample rate."""
    rate = job.models[0].built.sample_rate
    return pathlib.Path(job.output, job.models[0].name, f"{SYNTHETIC}_{rate // 1000}khz_{_SECONDS}s.wav")


def write(job: JobSpec) -> None:
    """Make the sine of a job that wants one; one that is there already keeps its time of change.

    The folder must have been looked at: links in it are followed, but one in the place of the sine is replaced.

    Raises:
        RunFailed: the output folder cannot be written.
    """
    if job.audio != SYNTHETIC:
        return
    place, content = path(job), sine(job.models[0].built.sample_rate)
    try:
        if place.is_file() and place.read_bytes() == content:
            return
        place.parent.parent.mkdir(parents=True, exist_ok=True)
        files.make_folder(place.parent)
    except OSError as error:
        raise RunFailed(f"output {job.output}: {error.strerror}; choose another folder") from error
    files.replace(place, content)


def sine(rate: int, seconds: float = _SECONDS) -> bytes:
    """Return a WAV file: mono, 16 bits, `rate` Hz."""
    samples = np.sin(2 * np.pi * _PITCH * np.arange(round(rate * seconds)) / rate) * _PEAK * 32767
    data = samples.astype("<i2").tobytes()
    layout = "<4sI4s4sIHHIIHH4sI"
    header = (b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", len(data))
    return struct.pack(layout, *header) + data
