"""Every error of the worker that crosses modules, and what becomes of it.

::

    Exception
    +-- Interrupted             the host went away, or asked to stop; the worker ends
    +-- CannotStart             no attempt could run this shard here; the worker ends
    +-- NoModel                 not one model of the shard could load; the worker ends
    +-- AudioError              the item fails, as the error's `kind`
    +-- LookupError
    |   +-- UnknownExtractor    the job is refused, or the model
    +-- OSError                 the worker ends: nothing can be written any more, be it an event
    |   +-- OutputError         the same, said by those that write arrays and contexts
    +-- RuntimeError
    |   +-- TooLarge            the item fails, as `memory`
    |   +-- DeviceError         the GPU is of no use any more; the worker ends
    |       +-- DeviceMissing   it has not been there from the start
    +-- ValueError
        +-- ArrayError          the item fails, as `model`
        +-- NotFiniteError      the item fails, as `nonfinite`
        +-- SchemaError         the job or shard is refused

Any other error fails the model that is loading, or the item that the model is busy with. `protocol.exit_code`
says how a worker ends. None of them is a MemoryError: Python 3.7 keeps those that were freed for reuse, takes
one of a subclass for a plain one, and crashes.
"""

import typing as tp


class Interrupted(Exception):
    """The host went away or asked to stop; what is finished is committed."""


class CannotStart(Exception):
    """The shard, a folder or the file of events is nothing that a worker could begin with."""


class NoModel(Exception):
    """Not one model of the shard could load; events say why."""


class AudioError(Exception):
    """A file that gives no audio; `str()` is one line for the user.

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
    """No extractor has that name."""


class OutputError(OSError):
    """The output folder cannot be written: disk full, read-only, gone."""


class TooLarge(RuntimeError):
    """An item whose model would not fit; the message says what it needs and what there is."""


class DeviceError(RuntimeError):
    """The GPU failed; the message is the framework's.

    Attributes:
        model: the one that was loading, if it failed then.
    """

    def __init__(self, message: str, model: tp.Optional[str] = None) -> None:
        super().__init__(message)
        self.model = model


class DeviceMissing(DeviceError):
    """The worker has not got what it was granted; the message says what is missing."""


class ArrayError(ValueError):
    """An extractor returned something that is not what it declared."""


class NotFiniteError(ValueError):
    """Audio or an array holds NaN or infinity."""


class SchemaError(ValueError):
    """A value that does not fit its declaration."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__("{}: {}".format(path or "job", message))
        self.path = path
