"""Every error of the worker that crosses modules, and what becomes of it; `protocol.exit_code` says how a worker ends.

Any other error fails the model that is loading, or the item that the model is busy with; an OSError ends the
worker, since nothing can be written any more, be it an event. None of them is a MemoryError: Python 3.7 keeps
those that were freed for reuse, takes one of a subclass for a plain one, and crashes.
"""

import typing as tp


class Interrupted(Exception):
    """The host went away or asked to stop; what is finished is committed, and the worker ends."""


class CannotStart(Exception):
    """The shard, a folder or the file of events is nothing that a worker could begin with; it ends."""


class NoModel(Exception):
    """Not one model of the shard could load; events say why, and the worker ends."""


class AudioError(Exception):
    """A file that gives no audio: the item fails, as `kind`; `str()` is one line for the user.

    Attributes:
        kind: decode | empty | nonfinite | unreadable | changed | memory | timeout.
        sha256: of the file's contents, empty if they were not read.
        lasting: another try would give the same; not so where ffmpeg is what is missing.
    """

    def __init__(self, kind: str, message: str, sha256: str = "", lasting: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        self.sha256 = sha256
        self.lasting = lasting


class UnknownExtractor(LookupError):
    """No extractor has that name; the job is refused, or the model."""


class OutputError(OSError):
    """Arrays or contexts cannot be written, be the disk full, read-only or gone; the worker ends."""


class WeightsChanged(RuntimeError):
    """Weights are not what the shard named; every item of their model fails, as `changed`."""


class TooLarge(RuntimeError):
    """An item fails, as `memory`, whose model would not fit; the message says what it needs and what there is."""


class DeviceError(RuntimeError):
    """The GPU is of no use any more, and the worker ends; the message is the framework's.

    Attributes:
        model: the one that was loading, if it failed then.
    """

    def __init__(self, message: str, model: tp.Optional[str] = None) -> None:
        super().__init__(message)
        self.model = model


class DeviceMissing(DeviceError):
    """The worker has not got what it was granted, and ends; the message says what is missing."""


class ArrayError(ValueError):
    """An extractor returned something that is not what it declared; the item fails, as `model`."""


class NotFiniteError(ValueError):
    """Audio or an array holds NaN or infinity; the item fails, as `nonfinite`."""


class SchemaError(ValueError):
    """A value that does not fit its declaration; the job or shard is refused."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__("{}: {}".format(path or "job", message))
        self.path = path
