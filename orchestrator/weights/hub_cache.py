"""What the hub's own client has fetched on this machine before: taken by its hash, which is the name of its blob.

::

    <root>/models--<organisation>--<name>/refs/<branch>              the commit that a branch meant
    <root>/models--<organisation>--<name>/snapshots/<commit>/<file>  a link to
    <root>/models--<organisation>--<name>/blobs/<hash>               sha256 of a large file, git's sha1 of a small one
"""

import re
import typing as tp
from pathlib import Path

from orchestrator import files
from orchestrator.weights import transfer

_CHUNK = 1 << 20


class CachedFile(tp.NamedTuple):
    """A file whose content is what its name says; one of the hashes is empty."""

    path: Path
    commit: str
    sha256: str
    git_blob: str

    def source(self) -> transfer.ByteSource:
        """Return its bytes."""

        def read(offset: int) -> tuple[int, int | None, tp.Iterator[bytes]]:
            def chunks() -> tp.Iterator[bytes]:
                with self.path.open("rb") as f:
                    f.seek(offset)
                    while chunk := f.read(_CHUNK):
                        yield chunk

            return offset, self.path.stat().st_size, chunks()

        return read


def root(environ: tp.Mapping[str, str]) -> Path | None:
    """Return the folder by the variables that the hub's client minds; None where there is no home."""
    if named := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(named).expanduser()
    home = environ.get("HOME")
    caches = environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    above = environ.get("HF_HOME") or (f"{caches}/huggingface" if caches else "")
    return Path(above).expanduser() / "hub" if above else None


def find(folder: Path | None, repository: str, revision: str, file: str) -> CachedFile | None:
    """Return a file of a repository at a commit, branch or tag; None where it is not here, or is damaged."""
    if folder is None:
        return None
    above = folder / f"models--{repository.replace('/', '--')}"
    try:
        reference = above / "refs" / revision
        commit = reference.read_text("ascii").strip() if reference.is_file() else revision
        blob = (above / "snapshots" / commit / file).resolve(strict=True)
        sha256, git_blob = (blob.name if re.fullmatch(f"[0-9a-f]{{{n}}}", blob.name) else "" for n in (64, 40))
        right = files.sha256_of(blob) == sha256 if sha256 else git_blob and files.git_blob_of(blob) == git_blob
    except (OSError, ValueError):
        return None
    return CachedFile(blob, commit, sha256, git_blob) if right else None
