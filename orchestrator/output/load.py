"""Read what a job has written. numpy only: works wherever the output folder is.

::

    import orchestrator

    run = orchestrator.load("output/quickstart")
    print(run)                                        # a table of what is there
    pitch = run.array("crepe", "music/trumpet.ogg")   # float32 [T, 2]
    times = run.times("crepe", "music/trumpet.ogg")   # seconds of the frames' centres
    table = run.arrays("musicnn")                     # {item: float32 [753]}
    vector = run.combined("music/trumpet.ogg")        # encodecmae, mert, musicnn joined: float32 [2289]
    matrix = run.matrix("mert", "prosody.embedding")  # one row per item: values, items, labels
    print(run.labels("music/trumpet.ogg"))
    records = pandas.DataFrame(run.table())           # a dict of columns; a row per array

A name is `model`, its primary output or the only one that it wrote, or `model.output`, any.
"""

import dataclasses
import json
import os
import pathlib
import typing as tp
import warnings
import zipfile

import numpy as np

from orchestrator.output import manifest, overview
from orchestrator.output.contexts import Contexts
from orchestrator.output.folder import OutputDir
from orchestrator.output.manifest import Line
from orchestrator.output.told import Told
from orchestrator.text import printable
from worker import formats
from worker.protocol import Record

COMBINED = ("encodecmae", "mert", "musicnn")  # the order of `combined`
_FIELDS = [field.name for field in dataclasses.fields(Record)]

_Name = tuple[str, str]  # model, output


class Matrix(tp.NamedTuple):
    """Arrays of many items, ready for a classifier: rows in the order of the manifest."""

    values: np.ndarray  # float32 [N, D] of vectors, [N, T, D] of frames
    items: list[str]
    labels: list[dict[str, str]]


class Run:
    """The arrays of an output folder, by model and item; its `repr` is a table of them."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Read the manifest.

        Raises:
            FileNotFoundError: the folder holds no run; the message is one line, and says where one is.
            ValueError: the manifest is damaged.
        """
        self.root = pathlib.Path(root)
        self._folder = OutputDir(self.root)
        self.records: list[Line] = manifest.read(self._folder)
        self._primary: dict[str, str] = {
            r["model"]: r["output"] for r in self.records if r["path"].startswith(f"{r['model']}/")
        }
        self._index = {(r["model"], r["output"], r["item"], r.get("window") or 0): r for r in self.records}
        self._of: dict[_Name, list[Line]] = {}
        for record in self.records:
            self._of.setdefault((record["model"], record["output"]), []).append(record)
        self._told = Told(self._folder)

    def __repr__(self) -> str:
        """Return a table: a line for each output of each model."""
        return overview.show(self.root, self._of)

    @property
    def models(self) -> list[str]:
        """The models that have written something, sorted."""
        return sorted({model for model, _ in self._of})

    def table(self) -> dict[str, list[tp.Any]]:
        """Return the manifest as columns of equal length, one row per array; pandas and polars take it as it is."""
        names = dict.fromkeys([*_FIELDS, *(name for record in self.records for name in record)])
        return {name: [record.get(name) for record in self.records] for name in names}

    def items(self, model: str, output: str | None = None) -> list[str]:
        """Return the items of a model in the order of the manifest."""
        return list(dict.fromkeys(r["item"] for r in self._of.get(self._choose(model, output), ())))

    def record(self, model: str, item: str, output: str | None = None, window: int = 0) -> Line:
        """Return the manifest's line of one array; of `window` where the item has one array per window.

        Raises:
            KeyError: there is no such array; the message says what there is.
        """
        model, name = self._choose(model, output)
        try:
            return self._index[model, name, item, window]
        except KeyError:
            has = f"it has {', '.join(self.items(model, name)[:3])} ..."
            has = has if (model, name) in self._of else f"there are {', '.join(self._outputs(model))}"
            raise KeyError(f"{model} has no {name} of {item!r}; {has}") from None

    def array(self, model: str, item: str, output: str | None = None) -> np.ndarray:
        """Return one array; where the item has one per window, all of them as `[window, ...]`.

        Args:
            model: its name in the job, or `model.output`.
            item: path of the audio file relative to the audio root, with extension.
            output: None takes the primary one, or the only one that was written.

        Raises:
            KeyError: there is no such array.
            ValueError: its file is damaged, or the manifest leads out of the folder.
        """
        record = self.record(model, item, output)
        if record.get("windows") is None:
            return self._read(record)
        return np.stack([self._read(self.record(model, item, output, n)) for n in range(record["windows"])])

    def combined(self, item: str, models: tp.Sequence[str] = COMBINED) -> np.ndarray:
        """Return what several models say of an item, joined in their order; absent ones are left out.

        Args:
            item: path of the audio file.
            models: names, each `model` or `model.output`.

        Returns:
            `[D]` of vectors; of frames that agree in number `[T, D]`.

        Raises:
            KeyError: none of the models has the item.
            ValueError: the arrays cannot be joined; the message says what can.
        """
        chosen = [self._choose(name) for name in models if self._has(name)]
        there = [name for name in chosen if (*name, item, 0) in self._index]
        if not there:
            raise KeyError(f"none of {', '.join(models)} has {item!r}; the models here are {', '.join(self.models)}")
        return self._joined(there, item)

    def matrix(self, *models: str) -> Matrix:
        """Return a row for each item that all of `models` have, their arrays joined in this order.

        Vectors give `[N, D]`; frames are stacked, `[N, T, D]`, where all items have as many.

        An item that several rows of the job's table name is there once for each of them, with its labels.

        Args:
            models: one or more, each `model` or `model.output`.

        Raises:
            ValueError: arrays have different lengths, or cannot be joined; the message says what works.
        """
        if not models:
            raise ValueError(f"name one or more models; there are {', '.join(self.models)}")
        chosen = [self._choose(name) for name in models]
        others = [set(self.items(*name)) for name in chosen[1:]]
        items = [item for item in self.items(*chosen[0]) if all(item in other for other in others)]
        for name in chosen:
            self._warn(name)
        labelled = [(item, labels) for item in items for labels in self._told.labels(item)]
        joined = {item: self._joined(chosen, item) for item in items}
        rows = [joined[item] for item, _ in labelled]
        if len({row.shape for row in rows}) > 1:
            raise ValueError(self._uneven(chosen, [item for item, _ in labelled], rows))
        values = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
        return Matrix(values, [item for item, _ in labelled], [labels for _, labels in labelled])

    def arrays(self, model: str, output: str | None = None) -> dict[str, np.ndarray]:
        """Return all arrays of a model by item; warns where they come from different settings."""
        name = self._choose(model, output)
        self._warn(name)
        return {item: self.array(name[0], item, name[1]) for item in self.items(*name)}

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
        rows = self._told.labels(item)
        return rows if len(rows) > 1 else rows[0]

    def _read(self, record: Line) -> np.ndarray:
        place = manifest.locate(self._folder, record["path"])
        try:
            values = formats.read(place, record["dtype"], record["shape"])
        except (ValueError, OSError, TypeError, LookupError, EOFError, MemoryError, zipfile.BadZipFile) as error:
            raise ValueError(_damaged(place, self.root)) from error
        if list(values.shape) != record["shape"] or values.dtype.name != record["dtype"]:
            raise ValueError(_damaged(place, self.root))
        return values

    def _joined(self, names: list[_Name], item: str) -> np.ndarray:
        """Return the arrays of an item joined along their features."""
        arrays = [self.array(model, item, output) for model, output in names]
        frames = [name for name in names if self.record(name[0], item, name[1])["axes"] != ["feature"]]
        timed = any(self.record(model, item, output)["axes"][-1:] == ["time"] for model, output in names)
        if len(names) == 1 or (len({values.shape[:-1] for values in arrays}) == 1 and not timed):
            return np.concatenate(arrays, axis=-1)
        bad = frames[0] if frames else names[0]
        shape = self.array(bad[0], item, bad[1]).shape
        raise ValueError(f"{self._call(bad)} of {item!r} has shape {shape}; {self._advise(bad)}")

    def _uneven(self, names: list[_Name], items: list[str], rows: list[np.ndarray]) -> str:
        """Return why rows of different shapes make no matrix, and what would."""
        text = ", ".join(map(self._call, names))
        if rows[0].ndim == 1 and not any("time" in self._of[name][0]["axes"] for name in names):
            return f"{text}: vectors of different lengths; run the job to its end"
        other = next(n for n, row in enumerate(rows) if row.shape != rows[0].shape)
        shapes = f"{rows[0].shape} of {items[0]!r}, {rows[other].shape} of {items[other]!r}"
        return f"{text}: arrays of different lengths, {shapes}; {self._advise(names[0])}"

    def _advise(self, name: _Name) -> str:
        """Return how to get one vector per item from a model, out of what is here before what would have to be run."""
        return overview.advise(name, self._of, Contexts(self._folder.contexts))

    def _call(self, name: _Name) -> str:
        return name[0] if name[1] == self._primary.get(name[0]) else ".".join(name)

    def _warn(self, name: _Name) -> None:
        if len(self._settings(*name)) > 1:
            text = "arrays of different parameters or versions; run its job to the end to replace the old ones"
            warnings.warn(f"{self._call(name)}: {text}", stacklevel=3)
        asked, items = self._told.asked(name[0]), self.items(*name)
        if asked is not None and (others := [item for item in items if item not in asked]):
            text = f"{len(others)} of {len(items)} items are not of its last run, such as {others[0]!r}"
            remedy = f"`consort clean {self.root} --orphaned` removes their arrays"
            warnings.warn(f"{self._call(name)}: {text}; {remedy}", stacklevel=3)

    def _settings(self, model: str, output: str) -> set[str]:
        """Return what decided the numbers of a model's arrays, one text for each different setting."""
        names = {record["context"] for record in self._of.get((model, output), ())}
        contexts = map(Contexts(self._folder.contexts).find, names)
        keys = ("extractor", "version", "audio_version", "params", "window", "pooling", "dtype", "checkpoint")
        settings = [{key: context.get(key) for key in keys} for context in contexts if context is not None]
        return {json.dumps(one, sort_keys=True) for one in settings}

    def _has(self, name: str) -> bool:
        model, _, output = name.partition(".")
        return model in self.models and (not output or (model, output) in self._of)

    def _choose(self, model: str, output: str | None = None) -> _Name:
        """Return the model and output that a name means; an output that was never written is left to the caller."""
        if output is None and "." in model:
            model, _, output = model.partition(".")
        outputs = self._outputs(model)
        if not outputs:
            raise KeyError(f"no model {model!r} in {self.root}; there are {', '.join(self.models) or 'none'}")
        if output is None:
            output = self._primary.get(model, outputs[0].partition(".")[2])
            if model not in self._primary and len(outputs) > 1:
                raise KeyError(f"{model} has no primary output in {self.root}; name one of {', '.join(outputs)}")
        return model, output

    def _outputs(self, model: str) -> list[str]:
        return sorted(".".join(name) for name in self._of if name[0] == model)


def _damaged(place: pathlib.Path, root: pathlib.Path) -> str:
    remedy = f"`consort verify {root} --repair` removes what is damaged"
    return f"{printable(str(place))} is not what its record says; {remedy}"


def load(root: str | os.PathLike[str]) -> Run:
    """Return the arrays of an output folder.

    Raises:
        FileNotFoundError: it holds no run; the message is one line, and says where one is.
        ValueError: its manifest is damaged.
    """
    return Run(root)
