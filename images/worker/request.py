"""What a job or a fit asks of a model beside its parameters: the same on the host and, by the shard, in the worker."""

import dataclasses
import typing as tp

from worker import schema


@dataclasses.dataclass(frozen=True)
class WindowChoice:
    """`window:` of the job file, for models that leave the size of their windows to the user."""

    seconds: float
    hop_seconds: tp.Optional[float] = None  # default: windows that touch
    pad: str = dataclasses.field(default="reflect", metadata={"choices": ("reflect", "zero")})

    def __post_init__(self) -> None:
        hop = self.seconds if self.hop_seconds is None else self.hop_seconds
        if not 0 < hop <= self.seconds <= 3600:
            raise ValueError("seconds must lie above 0 and below 3600, and hop_seconds between 0 and seconds")


@dataclasses.dataclass(frozen=True)
class Request:
    """Given to an extractor once, before anything else is asked of it."""

    outputs: tp.FrozenSet[str] = frozenset()  # none: all
    window: tp.Optional[WindowChoice] = None
    layout: str = "per-item"  # per-window: outputs with "window" as their first axis are cut along it
    device: str = "cpu"  # cpu or cuda, for models that use one

    def wants(self, *outputs: str) -> bool:
        """Return whether any of `outputs` is asked for."""
        return not self.outputs or not self.outputs.isdisjoint(outputs)


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """One array of one item; `path` is relative to the output folder that holds it."""

    item: str
    path: str
    sha256: str
    shape: tp.List[int]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a model is to learn, from arrays that it has written before.

    `stage` names what is learned, `holds` the output that the files are of; `options` are the stage's own.
    """

    stage: str
    holds: str
    files: tp.List[ArrayFile]
    options: tp.Dict[str, tp.Any] = dataclasses.field(default_factory=dict)


PLAIN = Request()  # of a job that says nothing beside the parameters


def read(
    outputs: tp.Iterable[str] = (),
    window: tp.Optional[tp.Mapping[str, tp.Any]] = None,
    layout: str = "per-item",
    device: str = "cpu",
    path: str = "window",
) -> Request:
    """Return the request of a job's or a shard's plain values; of a `table` the files are made by the host.

    Raises:
        SchemaError: what `window` has wrong; `path` is where it stands.
    """
    choice = None if window is None else schema.build(WindowChoice, dict(window), path)
    return Request(frozenset(outputs), choice, "per-window" if layout == "per-window" else "per-item", device)
