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


def look(root: str, item: str, links: str = "inside") -> Source:
    """Return one file as it is now; where it really is only with the links that `follow` out of its folder."""
    target = Places(root, links).target(item) if links == "follow" else None
    return _look(root, item, target)


def _look(root: str, item: str, target: str | None) -> Source:
    try:
        status = os.stat(os.path.join(root, item))
    except (OSError, ValueError):  # the latter for a NUL in a list
        return Source(item, -1, -1, target=target)  # the worker says why it cannot be read
    return _seen(item, status, target)


def _seen(item: str, status: os.stat_result, target: str | None) -> Source:
    return Source(item, status.st_size, status.st_mtime_ns, target=target, ctime_ns=status.st_ctime_ns)


class Places:
    """Where files that a user has named are; links among them must be such as the job takes."""

    def __init__(self, root: str, links: str) -> None:
        self._root, self._links = root, links
        self._base = os.path.realpath(root)
        self._real: dict[str, str] = {}  # of folders

    def look(self, item: str, where: str = "") -> Source:
        """Return a file as it is now.

        Raises:
            JobError: it is behind a link that the job does not take; `where` is where its name stands.
        """
        if "\0" in item:
            return Source(item, -1, -1)
        target = self.target(item)
        if target and self._links != "follow":
            said = f"is behind a link that leads out of {self._root}; set `links: follow` or audio_root"
            raise JobError(f"audio: {where}{item} {said}")
        if self._links == "refuse" and self._resolve(item) != os.path.join(self._base, item):
            raise JobError(f"audio: {where}{item} is behind a link, which `links: refuse` does not take")
        return _look(self._root, item, target)

    def target(self, item: str) -> str | None:
        """Return where a file really is, if links on the way lead out of the root."""
        real = self._resolve(item)
        return None if _is_below(real, self._base) else real

    def _resolve(self, item: str) -> str:
        folder, name = os.path.split(os.path.join(self._root, item))
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        path = os.path.join(self._real[folder], name)
        return os.path.realpath(path) if os.path.islink(path) else path


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
            real = os.path.realpath(entry.path)
            target = None if _is_below(real, self._base) else real
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
            self._found.append(_seen(item, status, target))


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
