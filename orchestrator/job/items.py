"""What a scan finds: the audio files of a job, and what it leaves out."""

import collections
import dataclasses
import math
import os
import typing as tp

from orchestrator.text import printable
from worker.protocol import Facts
from worker.segment import Segment

_NAMED = 1000  # different names that one reason remembers
_SHOWN = 3
_MOUNTS = 32  # folders beyond the audio root that are named one by one


class TableRow(tp.NamedTuple):
    """What a line of a table says of a file beside its name."""

    line: int
    labels: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One audio file, or a segment of one, as the scan saw it. `size` is -1 where it could not even be looked at."""

    id: str  # POSIX path relative to the audio root; of a segment then `#` and its times
    size: int
    mtime_ns: int
    rows: tuple[TableRow, ...] = ()  # of a list or table; several where their labels differ
    target: str | None = None  # where it really is, if a link leads out of the audio root
    segment: Segment | None = None
    part: str | None = None  # the segment as it stands in ids and keys
    ctime_ns: int = 0

    def facts(self, sha256: str) -> Facts:
        """Return what the scan saw of it together with the hash of its bytes."""
        return Facts(sha256, self.size, self.mtime_ns, self.ctime_ns)

    def was(self, seen: Facts) -> bool:
        """Return whether it is what it was, by its size and times; that of change is no program's to set."""
        return (seen.size, seen.mtime_ns, seen.ctime_ns) == (self.size, self.mtime_ns, self.ctime_ns)

    @property
    def file(self) -> str:
        """The path of its file relative to the audio root."""
        return self.id if self.part is None else self.id[: -len(self.part) - 1]

    @property
    def order(self) -> tuple[str, float, float]:
        """By files, and those that are whole before their segments."""
        start, end = self.segment or (-1.0, None)
        return self.file, start, math.inf if end is None else end

    def cut(self, segment: Segment | None) -> "Source":
        """Return a segment of this file."""
        if segment is None:
            return self
        part = str(segment)
        return dataclasses.replace(self, id=f"{self.id}#{part}", segment=segment, part=part)

    def with_rows(self, *rows: TableRow) -> "Source":
        """Return it with these rows."""
        return dataclasses.replace(self, rows=rows)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Files that are not taken, for one reason."""

    reason: str
    count: int
    examples: list[str]  # "..." last, where there are others

    def __str__(self) -> str:
        return f"{self.count} {self.reason}: {', '.join(map(printable, self.examples))}"


@dataclasses.dataclass(frozen=True)
class Audio:
    """The audio root, what was found below it, sorted by id, and what was left out."""

    root: str
    sources: list[Source]
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)

    @property
    def beyond(self) -> list[str]:
        """The folders outside the audio root that links lead to: a worker must see them too."""
        targets = [source.target for source in self.sources if source.target and source.size >= 0]
        folders = sorted(set(map(os.path.dirname, targets)))
        if len(folders) > _MOUNTS:
            return [os.path.commonpath(folders)]
        return [one for one in folders if not any(one.startswith(above.rstrip("/") + "/") for above in folders)]


class Tally:
    """Counts what is left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, collections.Counter[str]] = {}
        self._others: collections.Counter[str] = collections.Counter()

    def add(self, reason: str, name: str) -> None:
        """Count one; equal names, such as endings, are shown once."""
        names = self._names.setdefault(reason, collections.Counter())
        if name in names or len(names) < _NAMED:
            names[name] += 1
        else:
            self._others[reason] += 1

    def left_out(self) -> list[LeftOut]:
        """Return a line for each reason, in the order in which they were met."""
        found = []
        for reason, names in self._names.items():
            examples = [f"{name} ({n})" if n > 1 else name for name, n in names.most_common(_SHOWN)]
            others = ["..."] if len(names) > _SHOWN else []
            found.append(LeftOut(reason, names.total() + self._others[reason], examples + others))
        return found
