"""`weights.lock`: what every fetched file is, so that what was fetched first is what is used for ever.

::

    {"files": [{"kind": "hub", "name": "m-a-p/MERT-v1-95M", "revision": "main", "commit": "12af15...",
                "file": "config.json", "sha256": "...", "size": 1234, "licence": "...", "by_hand": false}, ...]}
"""

import json
import typing as tp
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator import files
from orchestrator.errors import EnvironmentUnavailable
from worker.extractor import Checkpoint

_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Locked:
    """One file: where it came from and what it is."""

    kind: str
    name: str
    revision: str
    file: str
    sha256: str
    size: int
    licence: str
    commit: str = ""  # what the hub meant by the revision
    by_hand: bool = False  # put there by a person, where nobody publishes a hash

    @property
    def key(self) -> _Key:
        return self.kind, self.name, self.revision, self.file


class WeightsLock:
    """The lock of one cache of weights. Writers hold the folder's own lock; readers need none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, checkpoint: Checkpoint) -> Locked | None:
        """Return what is written down of a checkpoint.

        Raises:
            EnvironmentUnavailable: the lock is damaged: it must not be taken for empty.
        """
        return self._read().get(checkpoint[:4])

    def commit_of(self, name: str, revision: str) -> str:
        """Return the commit at which files of a repository were fetched before; empty if none was."""
        of = ("hub", name, revision)
        return next((entry.commit for key, entry in self._read().items() if key[:3] == of and entry.commit), "")

    def entries(self) -> list[Locked]:
        """Return everything that is written down, sorted."""
        return sorted(self._read().values(), key=lambda entry: entry.key)

    def add(self, entries: tp.Iterable[Locked]) -> None:
        """Write entries down beside those that other processes have added meanwhile."""
        known = {**self._read(), **{entry.key: entry for entry in entries}}
        files.replace_json(self.path, {"files": [asdict(known[key]) for key in sorted(known)]})

    def _read(self) -> dict[_Key, Locked]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
            return {one.key: one for one in (Locked(**entry) for entry in content["files"])}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise EnvironmentUnavailable(f"{self.path} cannot be read: {error.strerror}; mend that") from error
        except (ValueError, TypeError, KeyError) as error:
            raise EnvironmentUnavailable(f"{self.path} is damaged: restore it, or remove it and pull again") from error
