"""What crosses the process boundary: a Shard goes in, Events come out.

A shard is one JSON file. Events are JSON lines appended to a file that only this attempt writes; the
truth about what exists is in its `wrote` and `failed` lines, which follow the renaming of the arrays.
Files survive any death, are readable with `less`, and need nothing that Python 3.7 lacks.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import threading
import time
import typing as tp

from worker import errors, regular, schema
from worker import request as requests

VERSION = 2
AUDIO_VERSION = 1  # raised when `worker.audio` gives other samples for the same file; part of every key

# Exit codes of the worker (values of BSD sysexits). A file that fails is an event, not an exit code.
EXIT_OK = 0
EXIT_PERMANENT = 65  # no attempt at this shard would get further
EXIT_NO_MODEL = 69  # not one model could load, or the device was missing
EXIT_DEVICE = 71  # its GPU failed
EXIT_OUTPUT = 74  # arrays or events cannot be written
EXIT_AGAIN = 75  # it was asked to end
_EXITS = (
    (errors.CannotStart, EXIT_PERMANENT),
    (errors.NoModel, EXIT_NO_MODEL),
    (errors.DeviceMissing, EXIT_NO_MODEL),
    (errors.DeviceError, EXIT_DEVICE),
    (errors.Interrupted, EXIT_AGAIN),
    (OSError, EXIT_OUTPUT),
)

# Error classes of a failed item. The first group counts as handled until the source, the parameters
# or the version change; the second is tried again by the next run.
HANDLED = ("decode", "empty", "nonfinite", "unreadable", "model", "quarantine")
TRANSIENT = ("changed", "memory", "write", "timeout", "crash")

_LONGEST = 500  # characters of a message; some frameworks print the whole tensor


@dataclasses.dataclass(frozen=True)
class Item:
    """One audio file, or a segment of one.

    `id` is its POSIX path relative to the audio root, then `#` and the `segment` if it is one; `name` the path of its
    outputs without model and suffix. `size` and the two times are what the plan saw; `tasks` are the models it lacks.
    `target` is where it really is, an absolute path, if a link leads there out of the audio root.
    """

    id: str
    name: str
    size: int
    mtime_ns: int
    tasks: tp.List[str]
    target: tp.Optional[str] = None
    segment: tp.Optional[str] = None
    ctime_ns: int = 0

    @property
    def file(self) -> str:
        """The path of its file relative to the audio root."""
        return self.id if self.segment is None else self.id[: -len(self.segment) - 1]

    def facts(self, sha256: str) -> "Facts":
        """Return what was seen of it together with the hash that was read, or ""."""
        return Facts(sha256, self.size, self.mtime_ns, self.ctime_ns)

    @property
    def unread(self) -> str:
        """What stands for its source's hash where that cannot be had."""
        return "{}:{}".format(self.size, self.mtime_ns)


@dataclasses.dataclass(frozen=True)
class Task:
    """One model with everything that decides its numbers. `key` is the hash of all that but the audio."""

    name: str
    extractor: str
    key: str
    params: tp.Dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    outputs: tp.List[str] = dataclasses.field(default_factory=list)
    pooling: tp.Dict[str, str] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"
    batch_size: tp.Optional[int] = None
    format: str = "npy"
    files: tp.Dict[str, str] = dataclasses.field(default_factory=dict)
    checkpoint: tp.Dict[str, str] = dataclasses.field(default_factory=dict)
    window: tp.Optional[tp.Dict[str, tp.Any]] = None
    layout: str = "per-item"

    def request(self, device: str) -> requests.Request:
        """Return what is asked of the model, on `device`."""
        return requests.read(self.outputs, self.window, self.layout, device)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One environment x some items x one or more models x one device: the unit of launch and retry."""

    id: str
    attempt: int
    environment: str
    tasks: tp.List[Task]
    items: tp.List[Item]
    device: str = "cpu"
    variant: str = "cpu"  # of the environment
    lock: str = ""
    worker: str = ""
    plugins: tp.List[str] = dataclasses.field(default_factory=list)
    memory: tp.Optional[int] = None
    timeout: float = 600.0
    flags: tp.List[str] = dataclasses.field(default_factory=list)  # of every record of a model that could use a GPU
    gpu_module: str = ""  # of the environment: tries its GPU, and frees memory there
    kind: str = dataclasses.field(default="extract", metadata={"choices": ("extract", "fit")})
    fit: tp.Optional[requests.Fit] = None  # of a shard of that kind, which has one task and no items
    protocol: int = VERSION

    def __post_init__(self) -> None:
        if (self.kind == "fit") != (self.fit is not None and len(self.tasks) == 1 and not self.items):
            raise ValueError("a shard of kind fit, and no other, says what one task is to learn")


@dataclasses.dataclass(frozen=True)
class Record:
    """One line of the manifest: an array on disk, what it was made of, and how to read its axes.

    `window` and `windows` are the number of this window, from 0, and how many there are, where a file
    has one array per window; `start` then counts from the window's beginning. `declared` are the seconds
    that the source's own headers say, `peak` is its largest magnitude (full scale is 1), `samples` the sha256 of what
    was decoded: equal for copies in other formats. Records of version 0.4 have none of the three.
    """

    item: str
    model: str
    output: str
    path: str
    shape: tp.List[int]
    dtype: str
    axes: tp.List[str]
    frame_rate: tp.Optional[float]
    start: tp.Optional[float]
    key: str
    sha256: str
    bytes: int
    source: str
    duration: float
    sample_rate: int
    channels: int
    decoder: str
    flags: tp.List[str]
    context: str
    window: tp.Optional[int] = None
    windows: tp.Optional[int] = None
    declared: tp.Optional[float] = None
    peak: tp.Optional[float] = None
    samples: str = ""
    segment: tp.Optional[str] = dataclasses.field(default=None, metadata={"sparse": True})  # of an item that is one


@dataclasses.dataclass(frozen=True)
class Failure:
    """One (item, model) that could not be done, of the class `kind`.

    `key` is that of an output called "", of the source's sha256, or of `size:mtime_ns` where the file
    could not even be read; empty where the next run should try again whatever the class.
    """

    item: str
    model: str
    kind: str
    message: str
    key: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a source was when it was read; `sha256` is empty if it could not be, `ctime_ns` 0 until version 0.4."""

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int = 0


if tp.TYPE_CHECKING:
    from typing import Literal  # novermin - Python 3.7 has none, and never comes here

    _OfShard = Literal["hello", "device_missing", "device_lost", "output_lost", "heartbeat", "finished"]
    _OfModel = Literal["loading", "loaded", "model_refused", "batch_reduced", "progress", "note", "fitted"]
    Kind = tp.Union[_OfShard, _OfModel, Literal["opened", "decoded", "wrote", "failed"]]  # the last are of an item
else:
    Kind = str

# What happens to a shard, and the fields in which an event says more about it.
KINDS: tp.Dict[Kind, tp.Tuple[str, ...]] = {
    "hello": ("protocol", "packages", "device"),  # it has what it was granted
    "device_missing": ("message",),  # it has not, or its framework cannot use it; the worker ends
    "loading": ("model",),
    "loaded": ("model", "seconds"),
    "model_refused": ("model", "message"),  # cannot load, and the others go on; or cannot learn what it is to
    "opened": ("item", "model"),  # the item is decoded; with a model: that runs on it
    "decoded": ("item", "seconds", "facts"),
    "batch_reduced": ("model", "message"),
    "wrote": ("item", "model", "record", "seconds"),
    "failed": ("item", "model", "failure", "facts"),
    "device_lost": ("model", "message"),  # its GPU broke, while `model` was loading or in the middle of the work
    "output_lost": ("message",),  # arrays cannot be written any more; the worker ends
    "progress": ("model", "message", "share"),  # of a fit: where it stands, and 0 to 1 of it where that is known
    "note": ("model", "message"),  # of a fit: what its user should read once
    "fitted": ("model", "outcome"),  # the model is written; what it is like
    "heartbeat": (),
    "finished": (),
}


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a shard: its kind, and of the other fields those that `KINDS` names."""

    kind: Kind
    time: float = 0.0
    item: tp.Optional[str] = None
    model: tp.Optional[str] = None
    record: tp.Optional[Record] = None
    failure: tp.Optional[Failure] = None
    message: tp.Optional[str] = None
    seconds: tp.Optional[float] = None
    facts: tp.Optional[Facts] = None
    packages: tp.Optional[tp.Dict[str, str]] = None
    device: tp.Optional[str] = None
    protocol: tp.Optional[int] = None
    share: tp.Optional[float] = None
    outcome: tp.Optional[tp.Dict[str, tp.Any]] = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError("kind: {}".format(schema.unknown(str(self.kind), KINDS, "kind")))
        given = {name for name, value in vars(self).items() if value is not None} - {"kind", "time"}
        foreign = sorted(given.difference(KINDS[self.kind]))
        if foreign:
            raise ValueError("an event of kind {} has no {}".format(self.kind, ", ".join(foreign)))


def refuse_kind(kind: "tp.NoReturn") -> "tp.NoReturn":
    """Raise for a kind of event that a reader has forgotten; mypy finds it first."""
    raise AssertionError("nothing is known of events of kind {!r}".format(kind))


def exit_code(error: tp.Optional[BaseException]) -> int:
    """Return the exit code of a worker that ends with `error`, or without any."""
    if error is None:
        return EXIT_OK
    return next(code for kind, code in _EXITS if isinstance(error, kind))


def key_of(task_key: str, output: str, source: str, segment: tp.Optional[str] = None) -> str:
    """Return the key of one array: the hash of everything that its numbers depend on."""
    parts = ("consort", task_key, output, source) + (() if segment is None else (segment,))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest(value: tp.Any) -> str:
    """Return the sha256 of a plain value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: tp.Any) -> str:
    """Return JSON that is equal for equal values: sorted keys, ASCII only (names may not be UTF-8)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def one_line(error: BaseException) -> str:
    """Return the last words of an error on one line, with its type where the words alone say little."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST:
        text = "{} ... {}".format(text[: _LONGEST // 2], text[-_LONGEST // 2 :])
    known = isinstance(error, (ValueError, RuntimeError, OSError, MemoryError)) and text
    return text if known else "{}: {}".format(type(error).__name__, text).rstrip(": ")


def say_peak(peak: float) -> str:
    """Return the words for audio that is louder than audio can be."""
    return "the audio peaks at {:.4g}, full scale is 1.0: was it written as integers?".format(peak)


def encode(event: Event) -> str:
    """Return one line; fields that are not set are left out."""
    return canonical({k: v for k, v in schema.dump(event).items() if v is not None}) + "\n"


def decode(line: str) -> Event:
    """Return the event of one line.

    Raises:
        ValueError: no event; a line cut short by a death is the usual reason.
    """
    data = json.loads(line)
    return schema.build(Event, _translate(data) if isinstance(data, dict) else data, "event")


def _translate(data: tp.Dict[str, tp.Any]) -> tp.Dict[str, tp.Any]:
    """Return an event of protocol 1 in today's words: a killed run of version 0.4 may have left some."""
    data = dict(data)
    facts = data.pop("source", None)
    if data.get("kind") == "hello" and data.get("message"):
        data["kind"] = "device_missing"
    elif data.get("kind") == "failed" and data.get("message"):
        data["kind"] = "model_refused" if data.get("model") else "output_lost"
    elif facts is not None and data.get("kind") != "hello":
        data["facts"] = facts
    return data


class Channel:
    """The append-only file of one attempt's events, locked for as long as its writer lives."""

    def __init__(self, path: str) -> None:
        """Open the file, or make it.

        Raises:
            OSError: it cannot be written, is no regular file, or somebody else writes it.
        """
        descriptor = regular.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._file = os.fdopen(descriptor, "a", encoding="ascii", newline="\n")
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            raise
        self._guard = threading.Lock()

    def emit(self, *events: Event, durable: bool = False) -> None:
        """Append `events` in one piece; `durable` ones are on the disk when this returns."""
        now = round(time.time(), 3)
        lines = "".join(encode(dataclasses.replace(event, time=now)) for event in events)
        with self._guard:
            self._file.write(lines)
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, which lets go of its lock."""
        self._file.close()


def _lock(file: tp.IO[str]) -> None:
    """Take the lock of a file for writing; `consort status` may hold it for the blink of a look."""
    for _ in range(20):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
