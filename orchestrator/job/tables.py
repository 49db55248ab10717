"""Tables of audio: cells under a row of column names, or an object on each line. What could be guessed is refused."""

import csv
import io
import json
import pathlib
import re
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job import endings, times
from orchestrator.job.rows import Columns, Entry, Rows, latin
from orchestrator.job.times import Times

_NEMO = "audio_filepath"  # in the place of `path` in manifests of speech toolkits
_QUOTED = re.compile(r'"(?:[^"]|"")*"\Z')
_BEHIND = "."  # a row of its own behind the last one, unless a quote is open there


def read_cells(path: pathlib.Path, text: str, columns: Columns) -> Rows:
    """Return the rows of a text of cells, whose first row names its columns.

    Raises:
        JobError: it cannot be read without guessing; one line that says where and what to do.
    """
    first, _, rest = text.partition("\n")
    skipped = first.strip().lower() in ("sep=,", "sep=;", "sep=\t")  # a line of Excel's
    text = rest if skipped else text
    separator = _separator(text.partition("\n")[0], columns.path, ",;\t" if path.suffix.lower() == ".csv" else "\t,;")
    header, *rows = _split(path.name, text, separator, int(skipped))
    names = [latin(name).strip() for name in header[1]]
    rows = [(number, row) for number, row in rows if any(cell.strip() for cell in row)]
    if not any(names):
        raise JobError(f"audio: {path.name} is empty; it needs a row of column names")
    while names and not names[-1] and not any(cell.strip() for _, row in rows for cell in row[len(names) - 1 :]):
        names.pop()  # what is left of a column that was emptied
    doubled = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if doubled is not None:
        raise JobError(f"audio: {path.name} has the column {doubled!r} twice; rename one or take it out")
    _refuse_absent(path.name, "column", names, columns)
    cut = times.choose(path.name, names, columns, separator != ",")
    entries = [_entry(f"line {number} of {path.name}", number, names, row, columns, cut) for number, row in rows]
    return Rows(entries, [] if cut else times.unused(names, columns))


def _split(name: str, text: str, separator: str, skipped: int) -> list[tuple[int, list[str]]]:
    """Return the cells of each row, with the number of the line on which it begins."""
    lines = list(io.StringIO(text if text.endswith("\n") else text + "\n"))
    plain = separator == "\t" and not _is_quoted(lines)
    reader = csv.reader([*lines, _BEHIND], delimiter=separator, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)
    rows: list[tuple[int, list[str]]] = []
    before = 0
    try:
        for row in reader:
            rows.append((before + 1 + skipped, row))
            _refuse_swallowed(f"line {before + 1 + skipped} of {name}", separator, lines, before, reader.line_num)
            before = reader.line_num
    except csv.Error as error:
        raise JobError(f"audio: line {before + 1 + skipped} of {name} cannot be read: {error}") from error
    number, last = rows.pop()
    if last != [_BEHIND]:
        said = f"line {number} of {name} opens a quote that is never closed"
        raise JobError(f'audio: {said}; close it, or write it as ""')
    return rows or [(1, [])]


def _is_quoted(lines: tp.Iterable[str]) -> bool:
    """Return whether quotes stand around cells between tabs: all that begin with one are whole within their line."""
    found = (cell for line in lines if '"' in line for cell in line.rstrip("\n").split("\t") if cell.startswith('"'))
    return all(map(_QUOTED.match, found))


def _refuse_swallowed(where: str, separator: str, lines: list[str], before: int, after: int) -> None:
    """Refuse a row that goes over several lines where a later one looks like a row itself."""
    needed = lines[0].count(separator)
    for number in range(before + 1, min(after, len(lines))):
        if lines[number].count(separator) >= needed:
            said = f"{where} opens a quote that takes in the next lines, which look like rows"
            raise JobError(f'audio: {said}; close it, write it as "", or take the line ends out of the cell')


def _separator(header: str, column: str, order: str) -> str:
    """Return what separates the cells: what gives the wanted column, else what gives most."""
    cells = {one: [latin(cell).strip() for cell in next(csv.reader([header], delimiter=one), [])] for one in order}
    return next((one for one in order if column in cells[one]), max(order, key=lambda one: len(cells[one])))


def _refuse_absent(name: str, kind: str, names: tp.Sequence[str], columns: Columns) -> None:
    """Refuse a table without a column that the job names; `start` and `end` are named by none."""
    for key, column in zip(("path_column", "start_column", "end_column"), columns, strict=True):
        if column is None or column in names or (key != "path_column" and column in times.DEFAULTS):
            continue
        near = [one for one in names if one.casefold() == column.casefold()]
        remedy = f"set {key}={near[0]}" if near else f"set {key} to one of: {', '.join(names)}"
        if key == "path_column" and any(endings.is_audio(one.strip()) for one in names):
            remedy = f"has it a row of column names? it begins with {', '.join(names)}"
        raise JobError(f"audio: {name} has no {kind} {column!r}; {remedy}")


def _entry(where: str, number: int, names: list[str], row: list[str], columns: Columns, cut: Times | None) -> Entry:
    """Return a row of a table; its times must be there, if only as empty cells."""
    if any(cell.strip() for cell in row[len(names) :]):
        said = f"{where} has {len(row)} cells, and there are {len(names)} columns"
        raise JobError(f"audio: {said}; quote a cell that holds what separates them")
    for column in cut.used if cut else ():
        if names.index(column) >= len(row):
            said = f"{where} has {len(row)} cells, and {column} is column {names.index(column) + 1}"
            raise JobError(f"audio: {said}; mend the row, or write an empty cell there")
    cells = dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=False))
    name = cells.pop(columns.path)
    labels = {key: latin(value).strip() for key, value in cells.items()}
    return Entry(number, name, labels, times.segment(where, labels, cut) if cut else None)


def read_objects(path: pathlib.Path, text: str, columns: Columns) -> Rows:
    """Return the rows of a text with a JSON object on each line; a key that one lacks is as null there.

    Raises:
        JobError: it cannot be read without guessing; one line that says where and what to do.
    """
    found = [(n, *_object(f"line {n} of {path.name}", line, columns.path))
             for n, line in enumerate(text.split("\n"), 1) if line.strip()]  # fmt: skip
    names = list(dict.fromkeys(key for _, _, labels, _ in found for key in labels))
    if found and not any(name for _, name, _, _ in found):
        _refuse_absent(path.name, "key", names, columns)
    _refuse_absent(path.name, "key", [columns.path, *names], columns)
    cut = times.choose(path.name, names, columns, False)
    later = columns.start is not None and any(
        times.seconds(f"line {n} of {path.name}", "offset", labels.get("offset", ""))
        for n, _, labels, nemo in found if nemo
    )  # fmt: skip
    entries = []
    for number, name, labels, nemo in found:
        where = f"line {number} of {path.name}"
        ways = [way for way in (cut, times.NEMO if nemo and later else None) if way]
        parts = (times.segment(where, labels, way) for way in ways)
        entries.append(Entry(number, name, labels, next(filter(None, parts), None)))
    others = list(dict.fromkeys(key for _, _, labels, nemo in found if not nemo for key in labels))
    return Rows(entries, [] if cut else times.unused(others, columns))


def _object(where: str, line: str, column: str) -> tuple[str, dict[str, str], bool]:
    """Return the name of a line's file, its labels, and whether it is one of a speech toolkit's manifest."""
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except ValueError as error:
        raise JobError(f"audio: {where} is no JSON: {error}") from error
    except RecursionError as error:
        raise JobError(f"audio: {where} is nested too deeply; take that out") from error
    nemo = isinstance(row, dict) and _NEMO in row
    key = _NEMO if nemo and column == "path" and column not in row else column
    if not isinstance(row, dict) or not isinstance(row.get(key, ""), (str, type(None))):
        raise JobError(f"audio: {where} is no object with the name of a file as {key!r}")
    labels = {k: v if isinstance(v, str) else "" if v is None else json.dumps(v) for k, v in row.items()}
    return labels.pop(key, ""), labels, nemo


def _once(pairs: list[tuple[str, tp.Any]]) -> dict[str, tp.Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
