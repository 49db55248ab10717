"""The audio below a folder, by the names of its files, and what of it is left out and why."""

import os
import stat

from orchestrator.errors import JobError
from orchestrator.job import endings
from orchestrator.job.items import Audio, Source, Tally

LEADS_OUT = "links that lead out of the audio folder (`links: follow` takes them)"


def walk(root: str, links: str) -> Audio:
    """Return the audio below `root`, in no order.

    Links to folders are followed once for each real folder, and come last, so that a new one never takes over the name
    of a folder that is there already. Nothing is opened but files whose ending says nothing.

    Args:
        root: a folder.
        links: `inside`: those that stay below it; `follow`: all; `refuse`: none.

    Raises:
        JobError: it cannot be read.
    """
    return _Walk(root, links).walk()


def look(root: str, item: str, labels: dict[str, str], links: str = "inside") -> Source:
    """Return one file as it is now; where it really is only with the links that `follow` out of its folder."""
    path = os.path.join(root, item)
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the latter for a NUL in a list
        return Source(item, -1, -1, labels)  # the worker says why it cannot be read
    target = beyond(os.path.realpath(root), path) if links == "follow" else None
    return Source(item, status.st_size, status.st_mtime_ns, labels, target)


def beyond(root: str, path: str) -> str | None:
    """Return where `path` really is, if links on the way lead out of the real folder `root`."""
    real = os.path.realpath(path)
    return None if _is_below(real, root) else real


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


class _Walk:
    """One scan under way."""

    def __init__(self, root: str, links: str) -> None:
        self._root, self._links = root, links
        self._base = os.path.realpath(root)
        self._found: list[Source] = []
        self._tally = Tally()
        self._folders, self._linked = [""], list[str]()  # what is to be read: ids, the real folders first

    def walk(self) -> Audio:
        seen: set[str] = set()
        while self._folders or self._linked:
            inner = self._folders.pop() if self._folders else self._linked.pop(0)
            real = os.path.realpath(os.path.join(self._root, inner))
            if real in seen:
                self._tally.add("links to folders that are taken already", inner)
            elif self._links != "follow" and not _is_below(real, self._base):
                self._tally.add(LEADS_OUT, inner)
            else:
                seen.add(real)
                self._read(inner, real)
        return Audio(self._root, self._found, self._tally.left_out())

    def _read(self, inner: str, real: str) -> None:
        try:
            entries = sorted(os.scandir(os.path.join(self._root, inner)), key=lambda entry: entry.name)
        except OSError as error:
            if not inner:
                raise JobError(f"audio: {self._root} cannot be read: {error.strerror}") from error
            self._tally.add("folders that cannot be read", inner)
            return
        outside = not _is_below(real, self._base)
        for entry in entries:
            item = f"{inner}/{entry.name}" if inner else entry.name
            if entry.name.startswith("."):
                self._tally.add("hidden", item)
            elif entry.is_symlink():
                self._follow(entry, item)
            elif entry.is_dir():
                self._folders.append(item)
            elif self._is_audio(entry):
                self._take(entry, item, os.path.join(real, entry.name) if outside else None)

    def _follow(self, entry: os.DirEntry[str], item: str) -> None:
        if self._links == "refuse":
            self._tally.add("links (`links: inside` takes those that stay in the audio folder)", item)
        elif _is_folder(entry):
            self._linked.append(item)
        elif self._is_audio(entry):
            target = beyond(self._base, entry.path)
            if target and self._links != "follow":
                self._tally.add(LEADS_OUT, item)
            else:
                self._take(entry, item, target)

    def _is_audio(self, entry: os.DirEntry[str]) -> bool:
        """Return whether a file is audio, or count it among what is not."""
        known = endings.is_audio(entry.name)
        if known is None:
            known = endings.begins_as_audio(_head(entry.path))
            if not known:
                self._tally.add("audio neither by ending nor by first bytes", entry.name)
        elif not known:
            self._tally.add("of endings that are no audio's", os.path.splitext(entry.name)[1].lower())
        return known

    def _take(self, entry: os.DirEntry[str], item: str, target: str | None) -> None:
        try:
            status = entry.stat()
        except OSError:
            self._found.append(Source(item, -1, -1, target=target))  # the worker says why it cannot be read
        else:
            self._found.append(Source(item, status.st_size, status.st_mtime_ns, target=target))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _head(path: str) -> bytes:
    """Return the first bytes of a file, none where it cannot be read; a FIFO must not block the plan."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, endings.HEAD)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
