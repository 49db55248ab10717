"""What the runs of an output folder have kept of their items, for its reader: labels, and which were asked for."""

import json
import pathlib

from orchestrator import files
from orchestrator.output import manifest
from orchestrator.output.folder import OutputDir

Labels = dict[str, str]


class Told:
    """Reads each run's files once, when somebody asks."""

    def __init__(self, folder: OutputDir) -> None:
        self._folder = folder
        self._rows: dict[str, list[Labels]] | None = None

    def labels(self, item: str) -> list[Labels]:
        """Return the labels of every row that names an item; of an item without labels one that is empty.

        Raises:
            ValueError: what a run has kept is damaged.
        """
        if self._rows is None:
            self._rows = {}
            for path in sorted(self._folder.runs.glob("*/items.jsonl")):
                self._rows.update(self._items(path))
        return [dict(labels) for labels in self._rows.get(item, [{}])]

    def asked(self, model: str) -> set[str] | None:
        """Return the items that the last run of a model was about; None where no run tells of it.

        Raises:
            ValueError: what that run has kept is damaged.
        """
        for path in sorted(self._folder.runs.glob("*/plan.json"), reverse=True):
            if model in self._models(path):
                return set(self._items(path.with_name("items.jsonl")))
        return None

    def _items(self, path: pathlib.Path) -> dict[str, list[Labels]]:
        try:
            entries = list(map(json.loads, self._text(path).splitlines()))
            rows = {entry["id"]: entry["labels"] for entry in entries}
            listed = {item: kept if isinstance(kept, list) else [kept] for item, kept in rows.items()}
            return {item: [dict(row) for row in kept] or [{}] for item, kept in listed.items()}
        except FileNotFoundError:
            return {}
        except (TypeError, LookupError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged; remove {path.parent}, and run the job again") from error

    def _models(self, path: pathlib.Path) -> set[str]:
        try:
            return {model["name"] for model in json.loads(self._text(path))["models"]}
        except (OSError, TypeError, LookupError, ValueError):
            return set()

    def _text(self, path: pathlib.Path) -> str:
        return files.read_text(manifest.locate(self._folder, path.relative_to(self._folder.root).as_posix()))
