"""Take single files out of a wheel or source archive; nothing else of it reaches the disk.

An archive's own names are only compared with what is wanted and never used as paths, so a name such as
`../x` leads nowhere; links and devices are refused.
"""

import hashlib
import os
import stat
import tarfile
import typing as tp
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from orchestrator import files
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights.transfer import mismatch, partial_of

_CHUNK = 1 << 20
_LARGEST = 4 << 30  # bytes of one member; a declared size is not trusted


@dataclass(frozen=True)
class Member:
    """Where a member goes, and what it must be."""

    path: Path
    sha256: str
    executable: bool = False


def take(archive: Path, targets: tp.Mapping[str, Member]) -> None:
    """Write the members named in `targets`; each appears complete and verified or not at all.

    Raises:
        EnvironmentUnavailable: a member is absent, no regular file, too large or not the pinned one, the
            archive is damaged, or the disk does not take it.
    """
    missing = set(targets)
    try:
        opened = _members_of_zip if zipfile.is_zipfile(archive) else _members_of_tar
        for name, stream in opened(archive, frozenset(targets)):
            _store(name, stream, targets[name])
            missing.discard(name)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        raise EnvironmentUnavailable(f"{archive.name} cannot be unpacked ({type(error).__name__}: {error})") from error
    except OSError as error:
        raise EnvironmentUnavailable(f"{archive.name} cannot be unpacked: {error.strerror or error}") from error
    if missing:
        raise EnvironmentUnavailable(f"{archive.name} holds no {', '.join(sorted(missing))}")


def _members_of_zip(archive: Path, wanted: frozenset[str]) -> tp.Iterator[tuple[str, tp.IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(wanted & opened.NameToInfo.keys()):
            info = opened.getinfo(name)
            mode = info.external_attr >> 16
            if info.is_dir() or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise EnvironmentUnavailable(f"{name} in {archive.name} is not a regular file: refused")
            with opened.open(info) as stream:
                yield name, stream


def _members_of_tar(archive: Path, wanted: frozenset[str]) -> tp.Iterator[tuple[str, tp.IO[bytes]]]:
    # in the archive's order: going back in a compressed one means to unpack it again
    with tarfile.open(archive) as opened:
        for info in opened:
            if info.name not in wanted:
                continue
            stream = opened.extractfile(info) if info.isreg() else None
            if stream is None:
                raise EnvironmentUnavailable(f"{info.name} in {archive.name} is not a regular file: refused")
            with stream:
                yield info.name, stream


def _store(name: str, stream: tp.IO[bytes], target: Member) -> None:
    target.path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    part = partial_of(target.path)
    part.unlink(missing_ok=True)  # of one that was killed
    with files.written(target.path, part) as out:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > _LARGEST:
                raise EnvironmentUnavailable(f"{name} is larger than {_LARGEST >> 30} GiB: refused")
            digest.update(chunk)
            out.write(chunk)
        if digest.hexdigest() != target.sha256:
            raise EnvironmentUnavailable(mismatch(name, digest.hexdigest(), target.sha256))
        if target.executable:
            mode = os.fstat(out.fileno()).st_mode  # as the umask has it
            os.fchmod(out.fileno(), mode | (mode & 0o444) >> 2)
