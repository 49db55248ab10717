"""Fit the models of `prosody` to what a job has written: a token model, then an encoder of token sequences.

Nothing is extracted here. The features come from the records of the job's output folder, and a worker in
the environment of `prosody` reads them: its shard, of the kind `fit`, names them relative to that folder.
"""

import dataclasses
import pathlib
import typing as tp

from orchestrator.errors import JobError
from orchestrator.files import sha256_of
from orchestrator.fitting import work
from orchestrator.job.spec import JobSpec, ModelSpec
from orchestrator.output import ledger as ledgers
from orchestrator.output.contexts import Contexts
from orchestrator.output.folder import OutputDir
from orchestrator.output.ledger import Ledger
from orchestrator.running import placement
from orchestrator.running.progress import Progress
from orchestrator.text import duration
from worker import protocol, schema
from worker.protocol import Record, Task
from worker.request import ArrayFile, Fit

EXTRACTOR = "prosody"
_DESCRIPTION, _CENTRES = "kmeans_model.json", "cluster_centers.pt"  # of a token model
_ANALYSIS = ("frame_ms", "hop_ms", "emphasize_ratio", "smoothing_level", "output_normalize")


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """What the flags of `consort fit` say; None leaves it to the default."""

    stage: str = "clusters"
    model: str | None = None  # the job's model whose arrays are learned from
    output: str | None = None
    cluster_model: str | None = None  # folder of the token model, for the encoder
    clusters: int | None = None
    max_iter: int | None = None
    seed: int = 0
    size: str | None = None
    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        foreign = {"clusters": ("size", "epochs", "steps", "cluster_model"), "encoder": ("clusters", "max_iter")}
        for name in foreign[self.stage]:
            if getattr(self, name) is not None:
                raise JobError(f"--{name.replace('_', '-')}: has no meaning for the stage {self.stage}")
        for name in ("clusters", "max_iter", "epochs", "steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise JobError(f"--{name.replace('_', '-')}: {getattr(self, name)} is less than 1")
        if not 0 <= self.seed < 2**63:
            raise JobError(f"--seed: {self.seed} does not lie between 0 and 2^63")
        if self.epochs is not None and self.steps is not None:
            raise JobError("--steps: ends the training instead of --epochs; give one of them")


@dataclasses.dataclass(frozen=True)
class Material:
    """Arrays of one model that a fit can read."""

    model: str
    holds: str  # features or tokens
    files: list[Record]
    parameters: dict[str, tp.Any]
    outdated: int  # arrays of other parameters, which are left out


def fit(job: JobSpec, options: FitOptions, shown: Progress) -> tuple[pathlib.Path, dict[str, tp.Any]]:
    """Fit one model and return its folder and what it is like.

    Args:
        job: has been run, at least in part.
        options: what to fit.
        shown: says what happens.

    Raises:
        JobError: there is nothing to fit to, or it cannot be fitted to.
        EnvironmentUnavailable: the environment of `prosody` cannot be built, or a GPU is not there.
        RunFailed: the folder cannot be written, or the worker was lost.
    """
    models = [model for model in job.models if model.reference == EXTRACTOR]
    if not models:
        raise JobError(
            f"models: none is {EXTRACTOR}, whose features are learned from; add it and run `consort extract`"
        )
    named = [model for model in models if options.model in (None, model.name)]
    clusters = None
    if options.stage == "encoder":
        clusters = pathlib.Path(options.cluster_model or _named(named, "clusters") or "models/clusters").absolute()
        if not (clusters / _DESCRIPTION).is_file():
            raise JobError(f"{clusters}: there is no token model; run `consort fit` without --stage first")
    material = choose(job, models, options, clusters)
    folder = pathlib.Path(options.output or _named(named, options.stage) or f"models/{options.stage}").absolute()
    if folder.suffix == ".pt":
        raise JobError(f"{folder}: a fit writes a folder, with encoder.pt in it; name one by --output")
    if OutputDir(folder).manifest.exists() or OutputDir(folder).last_run():
        raise JobError(f"{folder}: holds what a run has written; a fit needs a folder of its own: name one by --output")
    if material.outdated:
        shown.say(f"{material.outdated} arrays of other parameters are left out; `consort extract` renews them")
    shown.say(f"fits {options.stage} to the {material.holds} of {len(material.files)} files of {material.model}")
    placed = placement.choose(dataclasses.replace(job, models=models), fits=True)
    shown.say(f"runtime {placed.runtime.name} ({placed.why}), device {placed.devices}")
    known = [clusters / name for name in (_DESCRIPTION, _CENTRES)] if clusters else []
    own = {path.name: str(path) for path in known if path.is_file()}
    task = Task(material.model, EXTRACTOR, "", params=material.parameters, files=own)
    return folder, work.Work(job, placed, OutputDir(folder), shown).run(task, request(material, options))


def choose(job: JobSpec, models: list[ModelSpec], options: FitOptions, clusters: pathlib.Path | None) -> Material:
    """Return the arrays to learn from: tokens of just these clusters where there are any, else features.

    Raises:
        JobError: there are none, or of several models and nobody says which.
    """
    if options.model is not None and options.model not in [model.name for model in models]:
        known = ", ".join(model.name for model in models)
        raise JobError(f"--model {options.model}: the job's models of {EXTRACTOR} are {known}")
    asked = [model for model in models if options.model in (None, model.name)]
    output = OutputDir(job.output)
    ledger = ledgers.read(output)
    contexts = Contexts(output.contexts)
    found: list[Material] = []
    if clusters is not None:
        centres = sha256_of(clusters / _CENTRES) if (clusters / _CENTRES).is_file() else ""
        found = [m for model in asked if (m := _material(ledger, contexts, model, "tokens", centres)).files]
    features = [_material(ledger, contexts, model, "features") for model in asked]
    usable = [material for material in features if material.files]
    every = {record.item for material in usable for record in material.files}
    # tokens of a part of the corpus are no reason to learn from that part alone: they are made of features again
    found = [m for m in found if every <= {record.item for record in m.files}][:1] or usable
    if not found:
        names = " or ".join(model.name for model in asked)
        outdated = sum(material.outdated for material in features)
        why = (
            f"the {outdated} of {names} are of other parameters or an older version"
            if outdated
            else f"none of {names} (a model with `outputs: [features]` alone needs no token model)"
        )
        raise JobError(f"no features to learn from in {job.output}: {why}; run `consort extract` on this job first")
    if len({protocol.canonical(material.parameters) for material in found}) > 1:
        names = ", ".join(material.model for material in found)
        raise JobError(f"models: {names} have features of different parameters; choose by --model")
    return max(found, key=lambda material: len(material.files))


def request(material: Material, options: FitOptions) -> Fit:
    """Return what the worker is asked to learn; what the options leave open is left to it."""
    encoder = _given(size=options.size, plan=_given(epochs=options.epochs, steps=options.steps))
    asked = _given(seed=options.seed, n_clusters=options.clusters, max_iter=options.max_iter, encoder=encoder)
    records = sorted(material.files, key=lambda record: record.item)
    files = [ArrayFile(r.item, r.path, r.sha256, r.shape, r.dtype) for r in records]
    return Fit(options.stage, material.holds, files, asked)


def _given(**options: tp.Any) -> dict[str, tp.Any]:
    return {name: value for name, value in options.items() if value is not None}


def rows(stage: str, facts: dict[str, tp.Any]) -> list[tuple[str, ...]]:
    """Return what a fit has given, as the rows of a table."""
    if stage == "clusters":
        quality = facts["quality"]
        seconds = quality["vectors"] * facts["frame_seconds"]
        return [
            ("corpus", f"{facts['files']} files, {quality['vectors']} frames, {duration(seconds)}"),
            ("iterations", f"{facts['iterations']}, {'' if facts['converged'] else 'not '}converged"),
            ("inertia", f"{quality['inertia']:.4g}, {quality['inertia'] / quality['vectors']:.4g} per frame"),
            ("variance explained", f"{100 * quality['explained']:.1f} %"),
            ("silhouette", f"{quality['silhouette']:.3f} of {quality['silhouette_sample']} frames"),
            ("tokens in use", f"{quality['used']} of {facts['n_clusters']}"),
            ("perplexity", f"{quality['perplexity']:.1f} tokens"),
        ]
    score, unigram = facts["validation"], facts["unigram"]
    return [
        ("network", f"{facts['size']}, {facts['parameters'] / 1e6:.1f} M parameters"),
        ("tokens", f"{facts['train_tokens']} to learn from, {facts['validation_tokens']} to validate with"),
        ("training", f"{facts['steps']} steps, {facts['epochs']} epochs; the best was {facts['best_epoch']}"),
        ("validation loss", f"{score['loss']:.3f} nats (unigram {unigram['loss']:.3f})"),
        ("hidden tokens guessed", f"{100 * score['accuracy']:.1f} %"),
        ("  most frequent token", f"{100 * unigram['accuracy']:.1f} %"),
        ("  nearest visible token", f"{100 * score['nearest_accuracy']:.1f} %"),
    ]


def _material(ledger: Ledger, contexts: Contexts, model: ModelSpec, holds: str, centres: str | None = None) -> Material:
    """Return the arrays of a model that were made as the job says, and of `centres` where that is given."""
    extractor = model.built
    settings = schema.dump(extractor)
    parameters = {name: settings[name] for name in _ANALYSIS}
    mine = [r for r in ledger.records.values() if r.model == model.name and r.output == holds]
    files = []
    for record in mine:
        context = contexts.read(record.context)
        said = {name: context.get("params", {}).get(name) for name in _ANALYSIS}
        same = said == parameters and context.get("version") == extractor.version
        if same and (centres is None or context.get("checkpoint", {}).get(_CENTRES) == centres):
            files.append(record)
    if any("time" not in record.axes for record in files):
        raise JobError(f"{model.name}: its {holds} are pooled, and a fit needs the frames; set `pooling: none`")
    return Material(model.name, holds, files, parameters, len(mine) - len(files))


def _named(models: list[ModelSpec], parameter: str) -> str | None:
    """Return the path that the job gives for a model of its own, or None; of several a fit must not guess one."""
    found = {path for model in models if (path := getattr(model.built, parameter)) is not None}
    if len(found) > 1:
        raise JobError(f"{parameter}: the job names {', '.join(sorted(found))}; choose by --model")
    return found.pop() if found else None
