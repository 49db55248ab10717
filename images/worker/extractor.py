"""The one interface that a model implements, and the words it is written in.

An extractor is a dataclass, alone in `worker/extractors/<name>.py`. Its annotated fields are the
parameters of the job file, so that the dataclass is at once the constructor, the validator and the
documentation. Frameworks are imported inside `load` and never at the top of a file: the host reads
every declaration without having any of them installed.
"""

import abc
import copy
import dataclasses
import os
import threading
import typing as tp

import numpy as np

from worker.request import PLAIN, Fit, Request
from worker.request import WindowChoice as WindowChoice  # plug-ins look for it here

Arrays = tp.Dict[str, np.ndarray]
PROVENANCE = "PROVENANCE.json"  # what is known of weights that no hub has published, in their folder
UNTRAINED = ("synthetic", "random-init", "random", "untrained")  # what it says as `weights` of those


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
    events: bool = False  # a row each; there may be none, and float16 would move them: they stay float32


class Checkpoint(tp.NamedTuple):
    """One file of weights. `load` finds its local path in `files[checkpoint.file]`.

    ::

        pypi    taken out of a pinned distribution that is neither installed nor executed
        hub     a file of a model hub's repository `name` at the commit `revision`
        url     the answer of one address
        folder  a file in a folder of the user's own, `name`, that is laid out as the hub's
        file    the user's own, with `name` as its path
    """

    kind: str
    name: str
    revision: str
    file: str
    sha256: str  # empty where nobody has published it: what is fetched first is written down, and holds
    licence: str
    archive: str = ""  # file name of the distribution on the index
    archive_sha256: str = ""
    commercial: bool = True  # False where the licence of the weights forbids commercial use
    size: int = 0  # bytes, where known
    git_blob: str = ""  # the sha1 by which git knows the content, where that is what is published
    url: str = ""  # of a `url` file
    made_by: str = ""  # the command that makes a file of the user's own

    @property
    def own(self) -> bool:
        """Whether the user has brought it."""
        return self.kind in ("file", "folder")


@dataclasses.dataclass(frozen=True)
class Windows:
    """Independent windows of equal length, in samples.

    The audio is extended by `left` and `right` samples, and cut every `hop`; a window holds whole
    frames of `frame_length` samples, `frame_hop` apart (default: the window is one frame)::

        left |<------------- audio ------------->| right
        [------ window ------]
              hop     [------ window ------]
                              [------ window --|....]   filled behind its length

    What happens to the end of the audio (`tail`)::

        drop   the last window holds `least` samples; what fills no frame is lost
        pad    as many windows as cover every sample; zeros count as samples
        keep   the same, one frame each, and `lengths` tells what is real; behind it stands
               what `pad_end` says
        every  as keep, but a window begins at every hop while there is audio
    """

    window: int
    hop: int
    left: int = 0
    right: int = 0
    pad_start: str = "zero"  # zero | reflect
    pad_end: str = "zero"  # zero | reflect
    tail: str = "drop"  # see below
    short: str = "zero"  # audio shorter than `least`: zero | repeat
    frame_length: tp.Optional[int] = None
    frame_hop: tp.Optional[int] = None
    least: tp.Optional[int] = None  # samples that the last window must hold; default: one frame
    memory_per_minute: int = 0  # bytes that `finish` needs per minute of audio

    def frames(self, length: int) -> int:
        """Return how many whole frames a window with `length` valid samples holds."""
        if self.tail in ("keep", "every"):
            return int(length > 0)
        size = self.frame_length or self.window
        if length < size:
            return 0
        return 1 + (length - size) // (self.frame_hop or self.hop)


@dataclasses.dataclass(frozen=True)
class Stream:
    """Blocks in order, for models that carry a state from one to the next (`Batch.state`).

    ::

        |--- block ---|--- block ---|- block -|
                  left[--- block ---]              what the second block's batch holds

    A block sees up to `left` samples of those before it again; the first one has none. The extractor
    returns the frames of the block alone, `ceil(samples / frame_hop)` for the whole audio.
    """

    block: int  # samples; whole frames
    frame_hop: int
    left: int = 0
    memory_per_minute: int = 0  # bytes that `finish` needs per minute of audio

    def frames(self, length: int) -> int:
        """Return how many frames audio of `length` samples gives."""
        return -(-length // self.frame_hop)


@dataclasses.dataclass(frozen=True)
class WholeFile:
    """The whole item at once, `[1, C, T]`, for models whose every frame depends on all others."""

    memory_per_minute: int  # bytes of working memory per minute of audio, to refuse in time


Framing = tp.Union[Windows, Stream, WholeFile]


class Batch(tp.NamedTuple):
    """Windows of one item, as `extract` sees them."""

    wave: np.ndarray  # float32 [B, C, W]; zeros behind the valid samples, or what `Windows.tail` says
    lengths: np.ndarray  # int64 [B], valid samples of each window; 0 for a window that only fills the batch
    starts: np.ndarray  # int64 [B], position of each window's first sample in the audio; may be < 0
    state: tp.Optional[tp.Dict[str, tp.Any]] = None  # of a Stream: empty at an item's first block, then kept


class Lesson(tp.NamedTuple):
    """Where a model learns, and whom it tells how far it is."""

    arrays: str  # folder that the paths of a fit's files are relative to; read-only
    folder: str  # gets what was learned
    say: tp.Callable[[str, tp.Optional[float]], None]  # gets a line, and the share that is done; None: once for all
    stop: threading.Event  # set: keep what can be gone on with, and raise `Interrupted`


_T = tp.TypeVar("_T")
_E = tp.TypeVar("_E", bound="Extractor")


def choice(default: _T, *allowed: _T) -> _T:
    """Declare a parameter that takes one of `allowed`; anything else is refused with the list."""
    return dataclasses.field(default=default, metadata={"choices": (default, *allowed)})


def between(default: _T, low: float, high: float) -> _T:
    """Declare a numeric parameter with `low <= value <= high`."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


WEIGHTS = (".h5", ".h5.gz", ".pt")  # endings of files with weights


def is_own(checkpoint: str, endings: tp.Tuple[str, ...] = ()) -> bool:
    """Return whether a `checkpoint` is a path of the user's own, also by its ending, and no published name."""
    return checkpoint.startswith((".", "/", "~")) or checkpoint.endswith(endings)


def beside(path: str) -> tp.List[str]:
    """Return where it may be said what the weights at `path` are: of their folder, or by name of that file alone."""
    folder, file = os.path.split(path)
    stem = os.path.splitext(file[: -len(".gz")] if file.endswith(".gz") else file)[0]
    return [os.path.join(folder, name) for name in (PROVENANCE, stem + "." + PROVENANCE, file + "." + PROVENANCE)]


def first_there(folder: str, names: tp.Sequence[str]) -> str:
    """Return the first of `names` that is in a folder of the user's own; where none is, the first."""
    place = os.path.expanduser(folder)
    return next((name for name in names if os.path.isfile(os.path.join(place, name))), names[0])


def own_file(path: str, *endings: str) -> Checkpoint:
    """Return the user's own file at `path`, or the only one with such an ending in a folder there."""
    place = os.path.expanduser(path)
    found = [name for name in os.listdir(place) if name.endswith(endings)] if os.path.isdir(place) else []
    if len(found) == 1:
        return Checkpoint("folder", path, "", found[0], "", "unknown")
    return Checkpoint("file", path, "", path, "", "unknown")


def refuse_unknown(checkpoint: str, published: tp.Iterable[str], own: str, example: str) -> None:
    """Raise ValueError for a `checkpoint` that is neither `published` nor the path of an `own` file or folder."""
    if not is_own(checkpoint) and checkpoint not in published:
        words = "checkpoint: {!r} is not one of {}; an own {} is given as a path, such as ./{}"
        raise ValueError(words.format(checkpoint, ", ".join(published), own, example))


def own_path() -> tp.Any:
    """Declare a parameter that names a file or folder of the user's own, by default none.

    In a job it is relative to the job's root, as all paths are.
    """
    return dataclasses.field(default=None, metadata={"path": True})


class Extractor(abc.ABC):
    """Turns waveforms into named arrays. See the module's docstring for the rules."""

    environment: tp.ClassVar[str]  # a folder in images/
    sample_rate: int  # Hz
    audio_channels: int = 1  # 1, or 2 for models that hear stereo
    version: tp.ClassVar[int] = 1  # raised when the numbers change
    pooling: tp.ClassVar[str] = "none"  # what the job gets when it asks for nothing
    batch_size: tp.ClassVar[int] = 1  # windows per call on a CPU
    gpu_batch_size: tp.ClassVar[int] = 16  # and on a GPU, where it is halved as long as memory is short
    seconds_per_minute: tp.ClassVar[float] = 1.0  # rough CPU cost of one minute of audio
    takes_window: tp.ClassVar[bool] = False  # whether `window:` means something to it
    request: Request = PLAIN  # what the job says beside the parameters; `asked` alone gives another one

    def asked(self: _E, **changes: tp.Any) -> _E:
        """Return this model, before it is loaded, with other things asked of it: fields of `Request`."""
        other = copy.copy(self)
        object.__setattr__(other, "request", dataclasses.replace(self.request, **changes))
        return other

    @abc.abstractmethod
    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return what this extractor can give with its parameters; the first one is primary."""

    @abc.abstractmethod
    def framing(self) -> Framing:
        """Return how the audio is cut."""

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the weights that `load` needs."""
        return ()

    def uses_gpu(self) -> bool:
        """Return whether this model computes on a GPU where there is one."""
        return False

    def flags(self) -> tp.Tuple[str, ...]:
        """Return what every record of this model must say, such as `lossy`."""
        return ()

    def describe(self) -> tp.Dict[str, tp.Any]:
        """Return what a record should say beyond the parameters, such as the backend in use."""
        return {}

    @abc.abstractmethod
    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Bring the model into memory, once per process.

        Args:
            device: "cpu" or "cuda".
            files: path of every checkpoint, by its `file`: with its name, and as what was hashed, whatever has
                replaced it since. It is good until the shard ends.
        """

    @abc.abstractmethod
    def extract(self, batch: Batch) -> Arrays:
        """Return frames `[B, F, ...]` by name, F being the frames of a full window.

        The names may be intermediate ones; `finish` turns them into outputs.
        """

    def finish(self, frames: Arrays) -> Arrays:
        """Return the outputs of a whole item from its stitched frames `[T, ...]`."""
        return frames

    def fit(self, asked: Fit, files: tp.Mapping[str, str], lesson: Lesson) -> tp.Dict[str, tp.Any]:
        """Learn from arrays that this model, with these parameters, has written; most models learn nothing.

        Args:
            asked: what is learned, and from which arrays.
            files: local path of every checkpoint that it builds on, by its `file`.
            lesson: where, and whom to tell.

        Returns:
            What the result is like, as plain values.

        Raises:
            ValueError: it cannot be learned, or not from these arrays.
            OSError: the folder cannot be written.
            Interrupted: it was to stop.
        """
        raise ValueError("{} learns nothing".format(type(self).__name__))
