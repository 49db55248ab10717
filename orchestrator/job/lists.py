"""Lists and tables of audio as people have them: a file of text comes in, its rows go out. No audio is looked at."""

import csv
import io
import json
import math
import pathlib
import typing as tp

from orchestrator.errors import JobError
from worker.segment import Segment

LISTS = (".txt", ".lst", ".scp", ".m3u", ".m3u8")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
DEFAULTS = ("start", "end")  # columns of segments, where a table has them
_LONGEST = 1e9  # seconds
_NEMO = "audio_filepath"  # in the place of `path` in manifests of speech toolkits


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


def read(path: pathlib.Path, columns: Columns, exists: tp.Callable[[str], bool]) -> list[Entry]:
    """Return the rows of a list or of a table; those without a name have an empty one.

    Args:
        path: its ending says which it is.
        columns: of a table.
        exists: tells whether a name is a file's: then it is one, whatever else the line could be.

    Raises:
        JobError: it cannot be read, or not without guessing; one line that says what to do.
    """
    text = _text(path)
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _objects(path, text, columns)
        case ".csv" | ".tsv":
            return _table(path, text, columns)
        case suffix:
            return list(_lines(path, text, suffix == ".scp", exists))


def latin(text: str) -> str:
    """Return a text whose bytes are no UTF-8 as what they most likely are, Windows' western alphabet."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _text(path: pathlib.Path) -> str:
    """Return the text of a file; bytes that are no UTF-8 stay what they are in the names of files."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JobError(f"audio: {path} cannot be read: {error.strerror}") from error
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = data.decode("utf-16")
        else:
            text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except UnicodeDecodeError as error:
        raise JobError(f"audio: {path.name} begins as UTF-16 and is none; save it as UTF-8") from error
    if data.count(b"\0") > len(data) // 4 and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise JobError(f"audio: {path.name} is no text, or UTF-16 without its mark; save it as UTF-8")
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def _lines(path: pathlib.Path, text: str, scp: bool, exists: tp.Callable[[str], bool]) -> tp.Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or (stripped.startswith("#") and not exists(line)):
            continue
        if scp and not exists(line):
            if stripped.endswith("|"):
                raise JobError(f"audio: line {number} of {path.name} is a command, and none is run; name a file there")
            key, _, name = stripped.partition(" ") if " " in stripped else stripped.partition("\t")
            if name.strip():
                yield Entry(number, name, {"utterance": latin(key)})
                continue
        yield Entry(number, line, {})


def _table(path: pathlib.Path, text: str, columns: Columns) -> list[Entry]:
    first, _, rest = text.partition("\n")
    skipped = first.strip().lower() in ("sep=,", "sep=;", "sep=\t")  # a line of Excel's
    text = rest if skipped else text
    separator = _separator(text.partition("\n")[0], columns.path, ",;\t" if path.suffix.lower() == ".csv" else "\t,;")
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        names = [latin(name).strip() for name in next(reader, [])]
        rows = [(reader.line_num + skipped, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise JobError(f"audio: line {reader.line_num + skipped} of {path.name} cannot be read: {error}") from error
    if not any(names):
        raise JobError(f"audio: {path.name} is empty; it needs a row of column names")
    while names and not names[-1] and not any(cell.strip() for _, row in rows for cell in row[len(names) - 1 :]):
        names.pop()  # what is left of a column that was emptied
    doubled = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if doubled is not None:
        raise JobError(f"audio: {path.name} has the column {doubled!r} twice; rename one or take it out")
    for key, column in zip(("path_column", "start_column", "end_column"), columns, strict=True):
        if column is not None and column not in names and (key == "path_column" or column not in DEFAULTS):
            known = ", ".join(names)
            raise JobError(f"audio: {path.name} has no column {column!r}; set {key} to one of: {known}")
    return [_entry(path, number, names, row, columns, separator != ",") for number, row in rows]


def _separator(header: str, column: str, order: str) -> str:
    """Return what separates the cells: what gives the wanted column, else what gives most."""
    cells = {one: [latin(cell).strip() for cell in next(csv.reader([header], delimiter=one), [])] for one in order}
    return next((one for one in order if column in cells[one]), max(order, key=lambda one: len(cells[one])))


def _entry(path: pathlib.Path, number: int, names: list[str], row: list[str], columns: Columns, commas: bool) -> Entry:
    """Return a row of a table; `commas` may stand in numbers where they separate no cells."""
    if any(cell.strip() for cell in row[len(names) :]):
        said = f"line {number} of {path.name} has {len(row)} cells, and there are {len(names)} columns"
        raise JobError(f"audio: {said}; quote a cell that holds what separates them")
    cells = dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=False))
    name = cells.pop(columns.path)
    labels = {key: latin(value).strip() for key, value in cells.items()}
    return Entry(number, name, labels, _segment(f"line {number} of {path.name}", labels, columns, commas))


def _segment(where: str, cells: tp.Mapping[str, str], columns: Columns, commas: bool = False) -> Segment | None:
    """Return the part of a file that a row means; None: all of it."""
    if columns.start not in cells or (columns.end is not None and columns.end not in cells):
        return None
    start, end = (
        _seconds(where, column, cells[column], commas) if column else None for column in (columns.start, columns.end)
    )
    if start is None and end is None:
        return None
    found = Segment(start or 0.0, end)
    if end is not None and found.start >= end:
        raise JobError(f"audio: {where}: {columns.start} {found.start:g} is not before {columns.end} {end:g}")
    return found


def _seconds(where: str, column: str, text: str, commas: bool) -> float | None:
    if not text:
        return None
    try:
        seconds = round(float(text.replace(",", ".", 1) if commas else text), 9)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < _LONGEST:
        said = f"audio: {where}: {column} {text!r} is no number of seconds"
        raise JobError(f"{said}; mend it, or set `start_column: null` to take whole files")
    return seconds


def _objects(path: pathlib.Path, text: str, columns: Columns) -> list[Entry]:
    column = columns.path
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except ValueError as error:
            raise JobError(f"audio: line {number} of {path.name} is no JSON: {error}") from error
        key = _NEMO if column == "path" and isinstance(row, dict) and _NEMO in row else column
        if not isinstance(row, dict) or not isinstance(row.get(key, ""), str):
            raise JobError(f"audio: line {number} of {path.name} is no object with the name of a file as {key!r}")
        labels = {k: v if isinstance(v, str) else "" if v is None else json.dumps(v) for k, v in row.items()}
        name, where = labels.pop(key, ""), f"line {number} of {path.name}"
        entries.append(Entry(number, name, labels, _segment(where, labels, columns) or _offset(where, key, labels)))
    if entries and not any(entry.name for entry in entries):
        known = ", ".join(dict.fromkeys(key for entry in entries for key in entry.labels))
        raise JobError(f"audio: {path.name} has no key {column!r}; set path_column to one of: {known}")
    return entries


def _offset(where: str, key: str, labels: tp.Mapping[str, str]) -> Segment | None:
    """Return the part that a manifest of a speech toolkit means, if it begins later than the file."""
    start = _seconds(where, "offset", labels.get("offset", ""), False) if key == _NEMO else None
    if not start:
        return None
    length = _seconds(where, "duration", labels.get("duration", ""), False)
    return Segment(start, None if length is None else round(start + length, 9))


def _once(pairs: list[tuple[str, tp.Any]]) -> dict[str, tp.Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
