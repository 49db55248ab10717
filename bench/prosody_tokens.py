"""What prosodic tokens and their embeddings know of a speaker, a digit and an emotion.

::

    .venv/bin/python bench/prosody_tokens.py AUDIO [--work DIR] [--epochs N]

AUDIO holds `CATALOGUE.csv`, with the columns path and label (JSON), and below `speech/` the sets fsdd (spoken
digits) and emodb (acted emotions). The script runs `consort extract`, `consort fit` and `consort fit --stage
encoder` on all speech, and prints for each representation how often the five nearest neighbours of a clip
agree with its label. Nothing is learned from labels; tokens and encoder have seen all clips.
"""

import argparse
import csv
import json
import pathlib
import sys
import tempfile
import typing as tp

import numpy as np
import yaml

import orchestrator
from orchestrator.__main__ import main as consort

NEIGHBOURS = 5
MODELS = {
    "statistics": {"outputs": ["features", "embedding"]},
    "histogram": {"params": {"clusters": "clusters"}, "outputs": ["tokens", "embedding"]},
    "encoder": {"params": {"clusters": "clusters", "encoder": "encoder"}, "outputs": ["embedding"]},
}


class Task(tp.NamedTuple):
    """A label to guess; neighbours with the same value of `apart` do not count."""

    name: str
    folder: str
    label: str
    apart: str | None


TASKS = (
    Task("speaker of a digit", "fsdd", "speaker", "digit"),
    Task("digit, own voice included", "fsdd", "digit", None),
    Task("digit, other voices only", "fsdd", "digit", "speaker"),
    Task("speaker of a sentence", "emodb", "speaker", "sentence"),
    Task("emotion, other voices only", "emodb", "emotion", "speaker"),
)


def main() -> int:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, help="folder to work in; kept, and gone on with")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", default="small")
    arguments = parser.parse_args()
    work = arguments.work or pathlib.Path(tempfile.mkdtemp(prefix="prosody-tokens-"))
    work.mkdir(parents=True, exist_ok=True)
    job = work / "job.yaml"
    models = [{"name": name, "extractor": "prosody", **settings} for name, settings in MODELS.items()]
    audio = str(arguments.audio.absolute() / "speech")
    job.write_text(yaml.safe_dump({"audio": audio, "output": "out", "models": models}), "utf-8")
    training = ["--stage", "encoder", "--epochs", str(arguments.epochs), "--size", arguments.size]
    for verb in (["extract"], ["fit"], ["extract"], ["fit", *training], ["extract"]):
        code = consort([verb[0], str(job), *verb[1:]])
        if code not in (0, 3):  # 3: what is fitted next is not there yet
            return code
    report(orchestrator.load(work / "out"), _labels(arguments.audio))
    return 0


def report(run: orchestrator.Run, labels: dict[str, dict[str, tp.Any]]) -> None:
    """Print how often neighbours agree with a clip, for every task and representation."""
    vectors = {name: run.arrays(name, "embedding") for name in MODELS}
    vectors["histogram"] = {item: values[25:] for item, values in vectors["histogram"].items()}  # tokens alone
    print(f"\n{'agreement of 5 neighbours':<28}{'clips':>6}{'chance':>8}" + "".join(f"{n:>12}" for n in MODELS))
    for task in TASKS:
        items = sorted(i for i in vectors["encoder"] if i.startswith(f"{task.folder}/"))
        truth = np.array([str(labels[i][task.label]) for i in items])
        apart = np.array([str(labels[i][task.apart]) for i in items]) if task.apart else np.arange(len(items))
        found = [accuracy(np.stack([vectors[n][i] for i in items]), truth, apart) for n in MODELS]
        chance = np.unique(truth, return_counts=True)[1].max() / len(truth)
        print(f"{task.name:<28}{len(items):>6}{chance:>8.3f}" + "".join(f"{value:>12.3f}" for value in found))


def accuracy(vectors: np.ndarray, truth: np.ndarray, apart: np.ndarray) -> float:
    """Return the share of clips whose nearest neighbours have their label.

    Args:
        vectors: `[N, D]`; standardised, then compared by the cosine.
        truth: labels `[N]`.
        apart: `[N]`; clips of the same value are no neighbours of each other.
    """
    spread = vectors.std(0)
    scaled = (vectors - vectors.mean(0))[:, spread > 0] / spread[spread > 0]
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    similarity = np.where(apart[:, None] == apart[None], -np.inf, scaled @ scaled.T)
    hits = 0
    for row, own in zip(similarity, truth, strict=True):
        nearest = np.argsort(-row, kind="stable")[:NEIGHBOURS]
        names, index = np.unique(truth[nearest], return_inverse=True)
        weight = np.bincount(index) + 1e-3 * np.bincount(index, weights=row[nearest])  # ties: the nearer ones
        hits += names[weight.argmax()] == own
    return hits / len(truth)


def _labels(audio: pathlib.Path) -> dict[str, dict[str, tp.Any]]:
    """Return the labels of each clip by its path below `speech/`."""
    with open(audio / "CATALOGUE.csv", encoding="utf-8", newline="") as f:
        rows = [row for row in csv.DictReader(f) if row["path"].startswith("speech/")]
    return {row["path"].removeprefix("speech/"): json.loads(row["label"]) for row in rows}


if __name__ == "__main__":
    sys.exit(main())
