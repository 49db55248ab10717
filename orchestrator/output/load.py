"""Read what a job has written. numpy only: works wherever the output folder is.

::

    import orchestrator

    run = orchestrator.load("output/quickstart")
    pitch = run.array("crepe", "music/trumpet.ogg")   # float32 [T, 2]
    times = run.times("crepe", "music/trumpet.ogg")   # seconds of the frames' centres
    table = run.arrays("musicnn")                     # {item: float32 [753]}
    vector = run.combined("music/trumpet.ogg")        # encodecmae, mert, musicnn joined: float32 [2289]
    matrix = run.matrix("mert", "musicnn")            # one row per item: values, items, labels
    print(run.labels("music/trumpet.ogg"))
"""

import json
import os
import pathlib
import typing as tp
import warnings

import numpy as np

from orchestrator import files
from orchestrator.output.contexts import Contexts
from orchestrator.output.folder import OutputDir
from worker import formats

COMBINED = ("encodecmae", "mert", "musicnn")  # the order of `combined`


class Matrix(tp.NamedTuple):
    """Vectors of many items, ready for a classifier: rows in the order of the manifest."""

    values: np.ndarray  # float32 [N, D]
    items: list[str]
    labels: list[dict[str, str]]


class Run:
    """The arrays of an output folder, by model and item."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Read the manifest.

        Raises:
            FileNotFoundError: the folder holds no manifest.
        """
        self.root = pathlib.Path(root)
        lines = files.read_text(self.root / "manifest.jsonl").splitlines()
        self.records: list[dict[str, tp.Any]] = [json.loads(line) for line in lines]
        self._primary: dict[str, str] = {
            r["model"]: r["output"] for r in self.records if r["path"].startswith(f"{r['model']}/")
        }
        self._index = {(r["model"], r["output"], r["item"], r.get("window") or 0): r for r in self.records}
        self._labels: dict[str, list[dict[str, str]]] | None = None

    @property
    def models(self) -> list[str]:
        """The models that have written something, sorted."""
        return sorted({record["model"] for record in self.records})

    def items(self, model: str, output: str | None = None) -> list[str]:
        """Return the items of a model in the order of the manifest."""
        name = self._output(model, output)
        mine = (r for r in self.records if r["model"] == model and r["output"] == name)
        return list(dict.fromkeys(r["item"] for r in mine))

    def record(self, model: str, item: str, output: str | None = None, window: int = 0) -> dict[str, tp.Any]:
        """Return the manifest's line of one array; of `window` where the item has one array per window.

        Raises:
            KeyError: there is no such array; the message says what there is.
        """
        name = self._output(model, output)
        try:
            return self._index[model, name, item, window]
        except KeyError:
            known = ", ".join(self.items(model, name)[:3])
            raise KeyError(f"{model} has no {name} of {item!r}; it has {known} ...") from None

    def array(self, model: str, item: str, output: str | None = None) -> np.ndarray:
        """Return one array; where the item has one per window, all of them as `[window, ...]`.

        Args:
            model: its name in the job.
            item: path of the audio file relative to the audio root, with extension.
            output: None takes the primary one.
        """
        record = self.record(model, item, output)
        if record.get("windows") is None:
            return formats.read(self.root / record["path"], record["dtype"], record["shape"])
        parts = [self.record(model, item, output, window) for window in range(record["windows"])]
        return np.stack([formats.read(self.root / part["path"], part["dtype"], part["shape"]) for part in parts])

    def combined(self, item: str, models: tp.Sequence[str] = COMBINED) -> np.ndarray:
        """Return the vectors of several models joined in their order, `[D]`; absent models are left out.

        Raises:
            KeyError: none of the models has the item.
            ValueError: an array has more than one axis.
        """
        there = [m for m in models if m in self._primary and (m, self._primary[m], item, 0) in self._index]
        if not there:
            raise KeyError(f"none of {', '.join(models)} has {item!r}; the models here are {', '.join(self.models)}")
        return np.concatenate([self._vector(model, item) for model in there])

    def matrix(self, *models: str) -> Matrix:
        """Return the vectors of the items that all of `models` have, joined in this order.

        An item that several rows of the job's table name is there once for each of them, with its labels.

        Args:
            models: one or more; the primary output of each is taken, and must be pooled.

        Raises:
            ValueError: an array has more than one axis, or arrays have different lengths.
        """
        if not models:
            raise ValueError(f"name one or more models; there are {', '.join(self.models)}")
        others = [set(self.items(model)) for model in models[1:]]
        items = [item for item in self.items(models[0]) if all(item in other for other in others)]
        labelled = [(item, labels) for item in items for labels in self._rows(item)]
        vectors = {item: np.concatenate([self._vector(model, item) for model in models]) for item in items}
        rows = [vectors[item] for item, _ in labelled]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"{', '.join(models)}: vectors of different lengths; run the job to its end")
        values = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
        return Matrix(values, [item for item, _ in labelled], [labels for _, labels in labelled])

    def _vector(self, model: str, item: str) -> np.ndarray:
        values = self.array(model, item)
        if values.ndim != 1:
            raise ValueError(f"{model} of {item!r} has shape {values.shape}; set `pooling: mean` to get one vector")
        return values

    def arrays(self, model: str, output: str | None = None) -> dict[str, np.ndarray]:
        """Return all arrays of a model by item; warns where they come from different settings."""
        if len(self._settings(model, self._output(model, output))) > 1:
            text = "arrays of different parameters or versions; run its job to the end to replace the old ones"
            warnings.warn(f"{model}: {text}", stacklevel=2)
        return {item: self.array(model, item, output) for item in self.items(model, output)}

    def times(self, model: str, item: str, output: str | None = None) -> np.ndarray:
        """Return the time of each frame's centre in seconds, float64 `[T]`.

        Raises:
            ValueError: the array is pooled and has no time axis.
        """
        record = self.record(model, item, output)
        if record["frame_rate"] is None or "time" not in record["axes"]:
            raise ValueError(f"{model} of {item!r} has no time axis; it was pooled or has one value per item")
        count = record["shape"][record["axes"].index("time")]
        return np.asarray(record["start"] + np.arange(count) / record["frame_rate"])

    def labels(self, item: str) -> dict[str, str] | list[dict[str, str]]:
        """Return the labels that the job's table gave an item, from the newest run that names it.

        Where several rows of the table name the item and say different things: a list, with those of each row.
        """
        rows = self._rows(item)
        return rows if len(rows) > 1 else rows[0]

    def _rows(self, item: str) -> list[dict[str, str]]:
        """Return the labels of every row that names an item; of an item without labels one that is empty."""
        if self._labels is None:
            self._labels = {}
            for path in sorted(OutputDir(self.root).runs.glob("*/items.jsonl")):
                for line in files.read_text(path).splitlines():
                    entry = json.loads(line)
                    labels = entry["labels"]
                    self._labels[entry["id"]] = labels if isinstance(labels, list) else [labels]
        return [dict(labels) for labels in self._labels.get(item, [{}])]

    def _settings(self, model: str, output: str) -> set[str]:
        """Return what decided the numbers of a model's arrays, one text for each different setting."""
        names = {r["context"] for r in self.records if r["model"] == model and r["output"] == output}
        contexts = map(Contexts(OutputDir(self.root).contexts).find, names)
        keys = ("extractor", "version", "audio_version", "params", "window", "pooling", "dtype", "checkpoint")
        settings = [{key: context.get(key) for key in keys} for context in contexts if context is not None]
        return {json.dumps(one, sort_keys=True) for one in settings}

    def _output(self, model: str, output: str | None) -> str:
        if model not in self.models:
            raise KeyError(f"no model {model!r} in {self.root}; there are {', '.join(self.models) or 'none'}")
        if output is not None:
            return output
        if model in self._primary:
            return self._primary[model]
        others = sorted({r["output"] for r in self.records if r["model"] == model})
        raise KeyError(f"{model} has no primary output in {self.root}; name one of {', '.join(others)}")


def load(root: str | os.PathLike[str]) -> Run:
    """Return the arrays of an output folder."""
    return Run(root)
