"""What can be removed from this machine, as it can be fetched or built again."""

import dataclasses
import pathlib
import shutil
import typing as tp

from orchestrator import files


@dataclasses.dataclass(frozen=True)
class Leftover:
    """One thing that takes room."""

    kind: str  # in the plural: "logs of builds"
    place: str
    size: int  # bytes
    remove: tp.Callable[[], object]
    used: float | None = None  # when last, of what somebody else may want; None: nobody does


def in_cache(path: pathlib.Path) -> bool:
    """Return whether a path in the cache is there, and no link on its way leads elsewhere."""
    root = files.cache_root()
    return path.exists() and path.resolve() == root.resolve() / path.relative_to(root)


def discard(path: pathlib.Path, lock: pathlib.Path) -> None:
    """Remove a file or a folder of the cache, unless somebody has begun to work on it meanwhile."""
    with files.taken(lock) as free:
        if free and in_cache(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
