"""Read what a job has written. numpy only: works wherever the output folder is.

::

    import orchestrator

    run = orchestrator.load("output/quickstart")
    pitch = run.array("crepe", "music/trumpet.ogg")   # float32 [T, 2]
    times = run.times("crepe", "music/trumpet.ogg")   # seconds of the frames' centres
    table = run.arrays("musicnn")                     # {item: float32 [753]}
    print(run.labels("music/trumpet.ogg"))
"""

import json
import os
import pathlib
import typing as tp
import warnings

import numpy as np


class Run:
    """The arrays of an output folder, by model and item."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Read the manifest.

        Raises:
            FileNotFoundError: the folder holds no manifest.
        """
        self.root = pathlib.Path(root)
        lines = (self.root / "manifest.jsonl").read_text("ascii").splitlines()
        self.records: list[dict[str, tp.Any]] = [json.loads(line) for line in lines]
        self._primary: dict[str, str] = {}
        for record in self.records:
            if record["path"].startswith(f"{record['model']}/"):
                self._primary[record["model"]] = record["output"]
        self._index = {(r["model"], r["output"], r["item"]): r for r in self.records}
        self._labels: dict[str, dict[str, str]] | None = None

    @property
    def models(self) -> list[str]:
        """The models that have written something, sorted."""
        return sorted({record["model"] for record in self.records})

    def items(self, model: str, output: str | None = None) -> list[str]:
        """Return the items of a model in the order of the manifest."""
        name = self._output(model, output)
        return [r["item"] for r in self.records if r["model"] == model and r["output"] == name]

    def record(self, model: str, item: str, output: str | None = None) -> dict[str, tp.Any]:
        """Return the manifest's line of one array.

        Raises:
            KeyError: there is no such array; the message says what there is.
        """
        name = self._output(model, output)
        try:
            return self._index[model, name, item]
        except KeyError:
            known = ", ".join(self.items(model, name)[:3])
            raise KeyError(f"{model} has no {name} of {item!r}; it has {known} ...") from None

    def array(self, model: str, item: str, output: str | None = None) -> np.ndarray:
        """Return one array.

        Args:
            model: its name in the job.
            item: path of the audio file relative to the audio root, with extension.
            output: None takes the primary one.
        """
        record = self.record(model, item, output)
        return _read(self.root / record["path"], record)

    def arrays(self, model: str, output: str | None = None) -> dict[str, np.ndarray]:
        """Return all arrays of a model by item; warns where they come from different settings."""
        if len(self._settings(model, self._output(model, output))) > 1:
            text = (
                f"{model}: arrays of different parameters or versions; run its job to the end to replace the old ones"
            )
            warnings.warn(text, stacklevel=2)
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

    def labels(self, item: str) -> dict[str, str]:
        """Return the labels that the job's table gave an item, from the newest run that names it."""
        if self._labels is None:
            self._labels = {}
            for path in sorted((self.root / ".consort" / "runs").glob("*/items.jsonl")):
                for line in path.read_text("ascii").splitlines():
                    entry = json.loads(line)
                    self._labels[entry["id"]] = entry["labels"]
        return dict(self._labels.get(item, {}))

    def _settings(self, model: str, output: str) -> set[str]:
        """Return what decided the numbers of a model's arrays, one text for each different setting."""
        names = {r["context"] for r in self.records if r["model"] == model and r["output"] == output}
        found = set()
        for name in names if len(names) > 1 else ():
            try:
                context = json.loads((self.root / ".consort" / "contexts" / f"{name}.json").read_text("ascii"))
            except FileNotFoundError:
                continue
            keys = ("extractor", "version", "audio_version", "params", "pooling", "dtype", "checkpoint")
            found.add(json.dumps({key: context.get(key) for key in keys}, sort_keys=True))
        return found

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


def _read(path: pathlib.Path, record: dict[str, tp.Any]) -> np.ndarray:
    if path.suffix == ".txt":
        rows = np.loadtxt(path, delimiter=",", dtype=record["dtype"], ndmin=2)
        return np.asarray(rows.reshape(record["shape"]))
    found = np.load(path, allow_pickle=False)
    return np.asarray(found if path.suffix == ".npy" else found["values"])
