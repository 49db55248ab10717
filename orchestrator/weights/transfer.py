"""Bring the bytes of one source to one file: resumed where it can be, verified, then renamed."""

import os
import typing as tp
import urllib.parse
from pathlib import Path

import requests
import requests.adapters
import urllib3

from orchestrator import files
from orchestrator.errors import EnvironmentUnavailable

_CHUNK = 1 << 18
_ATTEMPTS = 4
_LARGEST = 4 << 30  # bytes of a file whose size nobody states

Tell = tp.Callable[[str, int, int | None], None]  # file name, bytes there, bytes in all if known
# Reads from an offset: returns the offset that is really served, the size of the whole, and the chunks from there.
ByteSource = tp.Callable[[int], tuple[int, int | None, tp.Iterator[bytes]]]
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)


class BrokenOff(Exception):
    """The source broke off; what came is kept, and another attempt may go on from there."""


def silent(name: str, done: int, total: int | None) -> None:
    """Report nothing."""


def share(name: str, done: int, total: int | None) -> str:
    """Return how much of a file is there, in words."""
    return f"{100 * done // total} % of {name}" if total else f"{done >> 20} MB of {name}"


def partial_of(target: Path) -> Path:
    """Return where the bytes of an unfinished `target` are collected."""
    return target.parent / f".{target.name}.part"


def mismatch(name: str, found: str, expected: str) -> str:
    """Return the message about a file that is not the pinned one."""
    return f"{name} has sha256 {found[:12]}..., expected {expected[:12]}...: refused"


class _Expected(tp.NamedTuple):
    """What a file must be, as far as it is known."""

    name: str
    sha256: str
    git_blob: str
    size: int

    def problem(self, part: Path) -> str | None:
        """Return why what was collected is not the file, or None."""
        if self.sha256:
            found = files.sha256_of(part)
            return None if found == self.sha256 else mismatch(self.name, found, self.sha256)
        if self.git_blob:
            blob, right = files.git_blob_of(part), self.git_blob
            words = f"{self.name} is git blob {blob[:12]}..., expected {right[:12]}...: refused"
            return None if blob == right else words
        count = part.stat().st_size
        return None if self.size in (0, count) else f"{self.name} has {count} bytes, expected {self.size}: refused"

    def hold(self, part: Path, count: int) -> None:
        """Refuse more bytes than the file can have: a server without end would fill the disk."""
        most = self.size or _LARGEST
        if count > most:
            part.unlink()
            raise EnvironmentUnavailable(f"{self.name} is larger than {most} bytes: refused")


def fetch(source: ByteSource, target: Path, sha256: str, progress: Tell, git_blob: str = "", size: int = 0) -> Path:
    """Copy `source` to `target`.

    Args:
        source: where the bytes come from.
        target: appears complete and verified or not at all.
        sha256: what the content must be; empty where only `git_blob` is known, or nothing.
        progress: told of every chunk.
        git_blob: git's sha1 of the content, asked where `sha256` is empty.
        size: bytes; more are never taken, and fewer only where a hash agrees. 0: not known.

    Raises:
        EnvironmentUnavailable: it broke off again and again, its content is not the pinned one, or the
            disk does not take it.
    """
    part, expected = partial_of(target), _Expected(target.name, sha256, git_blob, size)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not sha256 and not git_blob:
            part.unlink(missing_ok=True)  # nothing would tell the beginning of another file from that of this one
        resumed = part.exists()
        if resumed and expected.problem(part) is None:
            os.replace(part, target)  # killed between the last byte and the rename
            return target
        while problem := _collect(source, part, expected, progress):
            part.unlink()
            if not resumed:
                raise EnvironmentUnavailable(problem)
            resumed = False  # what lay there may have been the beginning of something else
        os.replace(part, target)
    except OSError as error:
        raise EnvironmentUnavailable(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _collect(source: ByteSource, part: Path, expected: _Expected, progress: Tell) -> str | None:
    """Fill `part` in as many attempts as allowed, and return why it is not the file, or None."""
    for _ in range(_ATTEMPTS):
        try:
            _append(source, part, expected, progress)
            return expected.problem(part)
        except BrokenOff as error:
            reason = f"{expected.name}: {error}"
    raise EnvironmentUnavailable(f"{reason}, {_ATTEMPTS} times; repeat the command to go on from there")


def _append(source: ByteSource, part: Path, expected: _Expected, progress: Tell) -> None:
    offset, total, chunks = source(part.stat().st_size if part.exists() else 0)
    total = total if total is not None else expected.size or None
    with part.open("ab" if offset else "wb") as stream:
        for chunk in chunks:
            expected.hold(part, max(total or 0, stream.tell() + len(chunk)))
            stream.write(chunk)
            progress(expected.name, stream.tell(), total)
        stream.flush()
        os.fsync(stream.fileno())
        if total is not None and stream.tell() < total:
            raise BrokenOff("the connection ended early")


def file_source(path: Path) -> ByteSource:
    """Return the bytes of a file on this machine, always from the beginning: that is as quick as to resume."""

    def read() -> tp.Iterator[bytes]:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk

    def serve(offset: int) -> tuple[int, int | None, tp.Iterator[bytes]]:
        try:
            return 0, path.stat().st_size, read()
        except OSError as error:
            raise EnvironmentUnavailable(f"{path} cannot be read: {error.strerror}") from error

    return serve


def web_source(get: tp.Callable[[tp.Mapping[str, str]], requests.Response]) -> ByteSource:
    """Return the bytes behind `get(headers)`, in ranges; of a server that knows none, all of them."""
    # identity: the hash is that of the file, whatever a server would like to do on the way
    headers = {"Accept-Encoding": "identity"}

    def serve(offset: int) -> tuple[int, int | None, tp.Iterator[bytes]]:
        response = get({**headers, "Range": f"bytes={offset}-"} if offset else headers)
        if response.status_code == 416 or (response.status_code == 206 and _start(response) != offset):
            response.close()
            offset, response = 0, get(headers)
        if response.status_code not in (200, 206):
            response.close()
            raise EnvironmentUnavailable(f"the server that should have the file answered HTTP {response.status_code}")
        served = offset if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        return served, served + int(length) if length.isdigit() else None, _stream(response)

    return serve


def _stream(response: requests.Response) -> tp.Iterator[bytes]:
    try:
        with response:
            yield from response.raw.stream(_CHUNK, decode_content=False)
    except NETWORK_ERRORS as error:
        raise BrokenOff(f"the connection broke ({type(error).__name__})") from None


def _start(response: requests.Response) -> int:
    """Return the first byte of a partial answer, from `Content-Range: bytes 5-9/10`; -1 when unreadable."""
    start = response.headers.get("Content-Range", "").partition("bytes ")[2].partition("-")[0]
    return int(start) if start.isdigit() else -1


def open_session(**limits: tp.Any) -> requests.Session:
    """Return a session that asks again, within the `limits` of `urllib3.Retry`."""
    session = requests.Session()
    retry = urllib3.Retry(backoff_factor=0.25, raise_on_status=False, **limits)
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
    return session


def host(address: str) -> str:
    """Return host and port, without credentials."""
    return urllib.parse.urlsplit(address).netloc.rpartition("@")[2]
