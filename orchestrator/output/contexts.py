"""What many records share: parameters, checkpoint, lock, worker, device; read once each, from one place."""

import json
import pathlib
import re
import typing as tp

from orchestrator import files
from worker import protocol

LOST = "is not there"
NAME = re.compile(r"\w{1,64}\Z", re.ASCII)  # of a context: a path in a record must lead nowhere


class Contexts:
    """The contexts of one output folder. Their names stand in records, which anybody may have written."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._known: dict[str, dict[str, tp.Any] | None] = {}

    def find(self, name: str) -> dict[str, tp.Any] | None:
        """Return a context, or None where its file is lost."""
        if name not in self._known:
            try:
                self._known[name] = self._read(name)
            except (OSError, ValueError):
                self._known[name] = None
        return self._known[name]

    def read(self, name: str) -> dict[str, tp.Any]:
        """Return a context; an empty one where its file is lost, so that its arrays count as outdated."""
        return self.find(name) or {}

    def problem(self, name: str) -> str | None:
        """Return what is wrong with the file of a context, or None.

        Raises:
            PermissionError: nobody can say, as it may not be read.
        """
        try:
            return None if protocol.digest(self._read(name)) == name else "is not what its name says"
        except FileNotFoundError:
            return LOST
        except PermissionError:
            raise
        except (OSError, ValueError):
            return "is not what its name says"

    def _read(self, name: str) -> dict[str, tp.Any]:
        if not NAME.match(name):
            raise ValueError(f"{name!r} names no context")
        content = json.loads(files.read_text(self._folder / f"{name}.json"))
        if not isinstance(content, dict):
            raise ValueError(f"{name} holds no mapping")
        return content
