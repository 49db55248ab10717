"""Lists and tables of audio as people have them: a file of text comes in, its rows go out. No audio is looked at."""

import pathlib
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job import tables
from orchestrator.job.rows import Columns, Entry, Rows, latin

LISTS = (".txt", ".lst", ".scp", ".m3u", ".m3u8")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def read(path: pathlib.Path, columns: Columns, exists: tp.Callable[[str], bool]) -> Rows:
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
            return tables.read_objects(path, text, columns)
        case ".csv" | ".tsv":
            return tables.read_cells(path, text, columns)
        case suffix:
            return Rows(list(_lines(path, text, suffix == ".scp", exists)), [])


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
