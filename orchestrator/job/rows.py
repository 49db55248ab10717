"""What lists and tables are read into: rows that name files, with labels and the part of the file that is meant."""

import typing as tp

from worker.segment import Segment


class Columns(tp.NamedTuple):
    """Which columns of a table hold the names of files, and the seconds at which segments begin and end, if any do."""

    path: str
    start: str | None
    end: str | None


class Entry(tp.NamedTuple):
    """One row: the name of a file as it is written there, its labels, and the part of the file that is meant."""

    line: int
    name: str
    labels: dict[str, str]
    segment: Segment | None = None


class Rows(tp.NamedTuple):
    """The rows of a list or table in their order, and what a user should know of how they were read, a line each."""

    entries: list[Entry]
    remarks: list[str]


def latin(text: str) -> str:
    """Return a text whose bytes are no UTF-8 as what they most likely are, Windows' western alphabet."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
