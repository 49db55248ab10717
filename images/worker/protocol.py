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
import sys
import threading
import time
import typing as tp

from worker import regular, schema

VERSION = 1
AUDIO_VERSION = 1  # raised when `worker.audio` gives other samples for the same file; part of every key

# Exit codes of the worker (values of BSD sysexits). A file that fails is an event, not an exit code.
EXIT_OK = 0
EXIT_PERMANENT = 65
EXIT_NO_MODEL = 69
EXIT_DEVICE = 71  # its GPU failed
EXIT_OUTPUT = 74
EXIT_AGAIN = 75

# Error classes of a failed item. The first group counts as handled until the source, the parameters
# or the version change; the second is tried again by the next run.
HANDLED = ("decode", "empty", "nonfinite", "unreadable", "model", "quarantine")
TRANSIENT = ("changed", "memory", "write", "timeout", "crash")

_LONGEST = 500  # characters of a message; some frameworks print the whole tensor


@dataclasses.dataclass(frozen=True)
class Item:
    """One audio file.

    `id` is its POSIX path relative to the audio root, `name` the path of its outputs without model
    and suffix. `size` and `mtime_ns` are what the plan saw; `tasks` are the models that it lacks.
    """

    id: str
    name: str
    size: int
    mtime_ns: int
    tasks: tp.List[str]


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
    kind: str = "extract"
    protocol: int = VERSION


@dataclasses.dataclass(frozen=True)
class Record:
    """One line of the manifest: an array on disk, what it was made of, and how to read its axes.

    `window` and `windows` are the number of this window, from 0, and how many there are, where a file
    has one array per window; `start` then counts from the window's beginning.
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
class Event:
    """Something that happened to a shard; which fields are set depends on `kind`."""

    kind: str
    time: float = 0.0
    item: tp.Optional[str] = None
    model: tp.Optional[str] = None
    record: tp.Optional[Record] = None
    failure: tp.Optional[Failure] = None
    message: tp.Optional[str] = None
    seconds: tp.Optional[float] = None
    source: tp.Optional[tp.Dict[str, tp.Any]] = None


KINDS = (
    "hello",  # with a message where the worker has not got the device it was granted
    "loading",
    "loaded",
    "opened",
    "decoded",
    "batch_reduced",
    "device_lost",
    "wrote",
    "failed",
    "heartbeat",
    "finished",
)


def key_of(task_key: str, output: str, source: str) -> str:
    """Return the key of one array: the hash of everything that its numbers depend on."""
    return hashlib.sha256("\n".join(("consort", task_key, output, source)).encode()).hexdigest()


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


def encode(event: Event) -> str:
    """Return one line; fields that are not set are left out."""
    return canonical({k: v for k, v in schema.dump(event).items() if v is not None}) + "\n"


def decode(line: str) -> Event:
    """Return the event of one line.

    Raises:
        ValueError: no event; a line cut short by a death is the usual reason.
    """
    return schema.build(Event, json.loads(line), "event")


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


def claim_stdout() -> None:
    """Point fd 1 at stderr: prints of libraries, C code and child processes end up in the log."""
    sys.stdout.flush()
    os.dup2(2, 1)


def watch_host(stop: threading.Event, patience: float) -> None:
    """Set `stop` when standard input closes, as it does whatever ends the host; end the process after that.

    Args:
        stop: looked at between two steps, so that what is finished is committed.
        patience: seconds until the process ends with 75, whatever it is in the middle of.
    """

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass  # closed from the start is closed as well
        stop.set()
        time.sleep(patience)
        os._exit(EXIT_AGAIN)

    threading.Thread(target=watch, daemon=True).start()
