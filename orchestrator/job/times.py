"""The times of a table's rows: which columns hold them, and the part of a file that a row means by them."""

import re
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job.rows import Columns
from worker.segment import Segment

DEFAULTS = ("start", "end")  # columns of segments, where a table has them
LENGTH = "duration"  # stands in for a column of ends
_LONGEST = 1e9  # seconds
_STARTS = ("start", "onset", "offset", "begin", "start_time", "begin_time")
_ENDS = ("end", "stop", "end_time", "stop_time")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\Z", re.ASCII)
_COMMA = re.compile(r"[-+]?\d*,\d+\Z", re.ASCII)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}\Z", re.ASCII)


class Times(tp.NamedTuple):
    """The columns that cut files: of two that could say where a segment ends, one alone. `commas` may be decimal."""

    start: str | None
    end: str | None
    length: str | None = None
    commas: bool = False

    @property
    def used(self) -> list[str]:
        """The columns by which it cuts."""
        return [column for column in (self.start, self.end, self.length) if column]


NEMO = Times("offset", None, LENGTH)  # in manifests of speech toolkits


def choose(file: str, names: tp.Sequence[str], columns: Columns, commas: bool) -> Times | None:
    """Return by which of a table's columns its rows are segments; None: they are whole files.

    Raises:
        JobError: the job names a column of ends and none of starts, and there may be one.
    """
    start, end = columns.start, columns.end
    if start is None:
        return None
    if start in names:
        if end is None or end in names:
            return Times(start, end, None, commas)
        if LENGTH in names:
            return Times(start, None, LENGTH, commas)
        return Times(start, None, None, commas) if start not in DEFAULTS else None
    others = [name for name in names if name != end and _plain(name) in _STARTS]
    if end not in names or (others and end in DEFAULTS):
        return None
    if others:
        raise JobError(f"audio: {file} has no column {start!r}; set start_column too, to one of: {', '.join(others)}")
    return Times(None, end, None, commas)


def unused(names: tp.Sequence[str], columns: Columns) -> list[str]:
    """Say which columns of a table that is not cut look like times."""
    found = [name for name in names if _plain(name) in (*_STARTS, *_ENDS)]
    if columns.start is None or not found:
        return []
    if found == [columns.start]:
        return [f"column {found[0]} is a label; `end_column: null` in the job cuts from there to the end of the file"]
    if any(_plain(name) in _STARTS for name in found):
        found = [name for name in names if name in found or _plain(name) == LENGTH]
    if len(found) == 1:
        key = "start_column" if _plain(found[0]) in _STARTS else "end_column"
        return [f"column {found[0]} is a label; {key} in the job cuts by it"]
    return [f"columns {', '.join(found)} are labels; start_column, end_column in the job cut by them"]


def segment(where: str, cells: tp.Mapping[str, str], times: Times) -> Segment | None:
    """Return the part of a file that a row means; None: all of it.

    Raises:
        JobError: its times are none, or in the wrong order; `where` is the line.
    """
    start, end, length = (
        seconds(where, column, cells.get(column, ""), times.commas) if column else None for column in times[:3]
    )
    if start is None and end is None:
        return None  # a length alone is that of the file
    named = times.end
    if length is not None and start is not None:
        end, named = round(start + length, 9), f"its end by {times.length},"
    found = Segment(start or 0.0, end)
    if end is not None and found.start >= end:
        raise JobError(f"audio: {where}: {times.start or 'start'} {found.start:g} is not before {named} {end:g}")
    return found


def seconds(where: str, column: str, text: str, commas: bool = False) -> float | None:
    """Return the number of a cell, None of an empty one.

    Raises:
        JobError: it is no number of seconds, or may be two.
    """
    if not text:
        return None
    mend = "set `start_column: null` to take whole files"
    if commas and _THOUSANDS.match(text):
        dot, none = text.replace(",", "."), text.replace(",", "")
        raise JobError(f"audio: {where}: {column} {text!r} may be {dot} or {none}; write which, or {mend}")
    if commas and _COMMA.match(text):
        text = text.replace(",", ".")
    if not _NUMBER.match(text) or not 0 <= float(text) < _LONGEST:
        raise JobError(f"audio: {where}: {column} {text!r} is no number of seconds; mend it, or {mend}")
    return round(float(text), 9)


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")
