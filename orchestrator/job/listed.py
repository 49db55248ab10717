"""The files that the rows of a list or of a table name, found as their names were most likely meant."""

import difflib
import os
import re
import typing as tp
import unicodedata
import urllib.parse

from orchestrator.errors import JobError
from orchestrator.job import endings, folder, rows
from orchestrator.job.folder import Places
from orchestrator.job.items import Audio, Source, TableRow, Tally
from orchestrator.job.rows import Entry, Rows

_LOOKED = 10_000  # names of a folder that a missing one is compared with
_SUGGESTED = 3  # missing names for which that is done
_FILE = re.compile(r"file:(//(localhost)?(?=/))?", re.IGNORECASE)  # in playlists
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
MISSING = "items whose file is not there, which will fail"
NO_AUDIO = "items that are text, pictures or arrays, which will fail"


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
        JobError: a name lies outside the root, or has `..` behind a link.
    """
    places, tally, trouble = Places(root, links), Tally(), _Trouble(root)
    files: dict[str, Source] = {}
    found: dict[str, Source] = {}
    for entry in read.entries:
        if not entry.name.strip():
            tally.add("rows without the name of a file", f"line {entry.line}")
            continue
        entry = _here(root, entry)
        _refuse_behind_link(root, entry)
        item = _find(root, entry.name)
        if item is None:
            written = rows.latin(entry.name.strip())
            address = _ADDRESS.match(written) and ".." not in written.split("/")
            item = written if address else _item(root, written) or _refuse_outside(root, entry)
        if item not in files:
            files[item] = places.look(item, f"line {entry.line}: ")
        source = files[item].cut(entry.segment)
        if found.get(source.id, source).part != source.part:
            raise JobError(f"audio: line {entry.line}: {source.id} is a file and a segment of another; rename the file")
        if source.id not in found:
            trouble.look(tally, source, entry)
        source = found.get(source.id, source)
        if any(row.labels == entry.labels for row in source.rows):
            tally.add("rows that repeat another one", f"line {entry.line}")
        else:
            row = TableRow(entry.line, entry.labels)
            found[source.id] = source.with_rows(*source.rows, row)
    counted = f"{len(read.entries)} rows, {len(found)} items"
    told = [*read.remarks, *([counted] if len(read.entries) != len(found) else [])]
    return Audio(root, list(found.values()), tally.left_out(), told)


class _Trouble:
    """Counts the items that will fail, each with what its name was and may have been."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._known: dict[str, tuple[str, str] | None] = {}  # of each file

    def look(self, tally: Tally, source: Source, entry: Entry) -> None:
        """Count an item that is met for the first time, if its file is not there or no audio."""
        if source.file not in self._known:
            self._known[source.file] = self._judge(source, entry)
        if found := self._known[source.file]:
            tally.add(*found)

    def _judge(self, source: Source, entry: Entry) -> tuple[str, str] | None:
        path, written = os.path.join(self._root, source.file), rows.latin(entry.name.strip())
        if source.size >= 0:
            is_none = endings.is_audio(source.file) is False and not endings.begins_as_audio(folder.head(path))
            return (NO_AUDIO, repr(written)) if is_none else None
        if "\0" not in path and os.path.isdir(path):
            return self._missing, f"{written!r} (a folder)"
        if "\0" not in path and os.path.islink(path):
            return self._missing, f"{written!r} (a link to nothing)"
        if _ADDRESS.match(written):
            return self._missing, f"{written} (an address; fetch it first)"
        few = sum(found is not None for found in self._known.values()) < _SUGGESTED
        return self._missing, f"{written!r}{_nearest(self._root, source.file) if few else ''}"

    @property
    def _missing(self) -> str:
        return f"{MISSING} (looked for in {self._root})"


def _here(root: str, entry: Entry) -> Entry:
    """Return a row whose name is the address of a file on this machine with its path instead."""
    name = entry.name.strip()
    address = _FILE.match(name)
    if address is None or exists(root, entry.name):
        return entry
    return entry._replace(name=urllib.parse.unquote(name[address.end() :]))


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
    for text in dict.fromkeys((stripped, urllib.parse.unquote(stripped), stripped.replace("\\", "/"))):
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


def _refuse_behind_link(root: str, entry: Entry) -> None:
    """Refuse `..` behind a link, which is not the folder that stands before it in the name."""
    parts = entry.name.strip().split("/")
    if ".." not in parts or "\0" in entry.name:
        return
    above = "/".join(parts[: len(parts) - parts[::-1].index("..")])
    if os.path.realpath(os.path.join(root, above)) != os.path.realpath(_join(root, above)):
        said = f"line {entry.line}: {entry.name.strip()} has `..` behind a link"
        raise JobError(f"audio: {said}; write the path without it")


def _refuse_outside(root: str, entry: Entry) -> tp.NoReturn:
    name = entry.name.strip()
    raise JobError(f"audio: {name} lies outside {root}; set audio_root to a folder that holds every entry")


def _nearest(root: str, item: str) -> str:
    """Return words about the name that comes nearest to one that is not there, if there is any."""
    inner, name = os.path.split(item)
    try:
        names = os.listdir(os.path.join(root, inner))
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(rows.latin(name), names, n=1) if len(names) <= _LOOKED else []
    return f" (there is {os.path.join(inner, close[0])!r})" if close else ""
