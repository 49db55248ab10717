"""The files that the rows of a list or of a table name, found as their names were most likely meant."""

import difflib
import os
import typing as tp
import unicodedata

from orchestrator.errors import JobError
from orchestrator.job import rows
from orchestrator.job.folder import Places
from orchestrator.job.items import Audio, Source, TableRow, Tally
from orchestrator.job.rows import Entry, Rows

_LOOKED = 10_000  # names of a folder that a missing one is compared with
_SUGGESTED = 3  # missing names for which that is done


def exists(root: str, name: str) -> bool:
    """Return whether there is a file of this name, as `gather` would find it."""
    return any(os.path.lexists(_join(root, one)) for one in dict.fromkeys((name, name.strip())) if "\0" not in one)


def gather(root: str, read: Rows, links: str) -> Audio:
    """Return the files of rows, and segments of them, in no order; rows of the same one are one item.

    Args:
        root: what their names are relative to, and where they must be.
        read: of a list or table.
        links: `inside`, `follow` or `refuse`, as for a folder.

    Raises:
        JobError: a name lies outside the root.
    """
    places, tally, suggested = Places(root, links), Tally(), 0
    files: dict[str, Source] = {}
    found: dict[str, Source] = {}
    for entry in read.entries:
        if not entry.name.strip():
            tally.add("rows without the name of a file", f"line {entry.line}")
            continue
        item = _find(root, entry.name)
        if item is None:
            item = _item(root, rows.latin(entry.name.strip())) or _refuse_outside(root, entry)
            near = _nearest(root, item) if suggested < _SUGGESTED else ""
            suggested += 1
            tally.add("rows whose file is not there, which will fail", f"{rows.latin(item)!r}{near}")
        if item not in files:
            files[item] = places.look(item, f"line {entry.line}: ")
        source = files[item].cut(entry.segment)
        if found.get(source.id, source).part != source.part:
            raise JobError(f"audio: line {entry.line}: {source.id} is a file and a segment of another; rename the file")
        source = found.get(source.id, source)
        if any(row.labels == entry.labels for row in source.rows):
            tally.add("rows that repeat another one", f"line {entry.line}")
        else:
            row = TableRow(entry.line, entry.labels)
            found[source.id] = source.with_rows(*source.rows, row)
    counted = f"{len(read.entries)} rows, {len(found)} items"
    told = [*read.remarks, *([counted] if len(read.entries) != len(found) else [])]
    return Audio(root, list(found.values()), tally.left_out(), told)


def _find(root: str, name: str) -> str | None:
    """Return the item of the first spelling of a name that is there; none may lie outside."""
    for spelling in _spellings(name):
        item = _item(root, spelling)
        if item is not None and "\0" not in item and os.path.lexists(os.path.join(root, item)):
            return item
    return None


def _spellings(name: str) -> tp.Iterator[str]:
    """Yield what a name may mean: itself first, then what editors, encodings and other systems make of it."""
    yield name
    stripped = name.strip()
    yield stripped
    for text in dict.fromkeys((stripped, stripped.replace("\\", "/"))):
        for one in dict.fromkeys((text, rows.latin(text))):
            yield from (one, unicodedata.normalize("NFC", one), unicodedata.normalize("NFD", one))


def _join(root: str, name: str) -> str:
    return os.path.normpath(os.path.join(root, os.path.expanduser(name)))


def _item(root: str, name: str) -> str | None:
    """Return the path relative to the root, or None where it lies outside."""
    path, above = _join(root, name), root.rstrip("/") + "/"
    if path.startswith(above):
        return path[len(above) :]
    item = os.path.relpath(path, root)
    return None if item == ".." or item.startswith("../") else item


def _refuse_outside(root: str, entry: Entry) -> tp.NoReturn:
    name = entry.name.strip()
    raise JobError(f"audio: {name} lies outside {root}; set audio_root to a folder that holds every entry")


def _nearest(root: str, item: str) -> str:
    """Return words about the name that comes nearest to one that is not there, if there is any."""
    folder, name = os.path.split(item)
    try:
        names = os.listdir(os.path.join(root, folder))
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(rows.latin(name), names, n=1) if len(names) <= _LOOKED else []
    return f" (there is {os.path.join(folder, close[0])!r})" if close else ""
