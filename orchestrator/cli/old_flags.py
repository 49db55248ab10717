"""Flags of the models' own scripts that belong to one model of a job.

They are set where the job leaves no doubt about which; else they are answered by the line that does it here.
"""

import argparse
import shlex
import typing as tp

from orchestrator.errors import JobError
from orchestrator.job.spec import JobSpec, ModelSpec
from worker import catalog, schema
from worker.errors import SchemaError

_Changes = list[tuple[str, tp.Any]]

_FLAGS = {
    "freq": ("KHZ", "of encodec: 24 or 48"),
    "window_sec": ("S", "of encodec: the length of windows that touch"),
    "target_duration": ("S", "of encodec: the length of windows that overlap by a tenth"),
    "model": ("NAME", "the checkpoint of the model that takes it"),
    "dataset": ("NAME", "answered by the flags that do it"),
}
_SWITCHES = {
    "full_sequence": "frames instead of one vector, of the model that pools",
    "status": "answered by the command that does it",
}
NAMES = (*_FLAGS, *_SWITCHES)


def add(parser: argparse.ArgumentParser) -> None:
    """Take them, without a value as well, so that they can be answered."""
    group = parser.add_argument_group("flags of the models' own scripts")
    for name, (value, text) in _FLAGS.items():
        group.add_argument(*_spellings(name), nargs="?", const="", metavar=value, help=text)
    for name, text in _SWITCHES.items():
        group.add_argument(*_spellings(name), action="store_true", help=text)


def changes(arguments: argparse.Namespace, job: JobSpec) -> _Changes:
    """Return what they set.

    Args:
        arguments: parsed.
        job: as the other flags make it.

    Raises:
        JobError: no model of the job takes one, or several do, or its value is wrong; the line that does it.
    """
    file = shlex.quote(arguments.job or "JOB.yaml")
    if arguments.status:
        raise JobError(f"--status: write `consort status {file}`")
    if arguments.dataset is not None:
        raise JobError(_dataset(arguments.dataset, arguments.command, file))
    found: _Changes = []
    if arguments.freq is not None:
        found += _freq(arguments.freq, job)
    if arguments.window_sec is not None:
        found += _window("--window_sec", arguments.window_sec, job, 1.0)
    if arguments.target_duration is not None:
        found += _window("--target_duration", arguments.target_duration, job, 0.9)
    if arguments.model is not None:
        found += _model(arguments.model, job)
    if arguments.full_sequence:
        pools = [m for m in job.models if (m.built.pooling if m.pooling is None else m.pooling) != "none"]
        found += _set("--full_sequence", pools, "pooling", "none") if pools else []
    return found


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def _set(flag: str, models: tp.Sequence[ModelSpec], key: str, value: tp.Any) -> _Changes:
    """Return the change of the one model that is meant.

    Raises:
        JobError: it is not one; the `--set` of each.
    """
    if len(models) == 1:
        return [(f"{models[0].name}.{key}", value)]
    lines = [f"`--set {model.name}.{key}={shlex.quote(str(value))}`" for model in models]
    if not lines:
        raise JobError(f"{flag}: no model of this job takes it; where one does: `--set MODEL.{key}={value}`")
    raise JobError(f"{flag}: which model? write {' or '.join(lines)}")


def _freq(text: str, job: JobSpec) -> _Changes:
    if text not in ("24", "48"):
        raise JobError(
            "--freq: write --freq 24 or --freq 48, or `--set encodec.params.checkpoint=facebook/encodec_48khz`"
        )
    models = [model for model in job.models if model.reference == "encodec"]
    return _set(f"--freq {text}", models, "params.checkpoint", f"facebook/encodec_{text}khz")


def _window(flag: str, text: str, job: JobSpec, hop: float) -> _Changes:
    models = [model for model in job.models if model.built.takes_window]
    try:
        seconds = float(text)
    except ValueError:
        name = models[0].name if models else "MODEL"
        raise JobError(f"{flag}: write `{flag} SECONDS`, or `--set {name}.window.seconds=SECONDS`") from None
    if hop == 1.0:
        return _set(f"{flag} {text}", models, "window.seconds", seconds)
    window = f"{{seconds: {seconds:g}, hop_seconds: {seconds * hop:g}, pad: zero}}"
    chosen = _set(f"{flag} {text}", models, "window", window)
    values = {"seconds": seconds, "hop_seconds": round(seconds * hop, 6), "pad": "zero"}
    return [(f"{key}.{inner}", value) for key, _ in chosen for inner, value in values.items()]


def _model(name: str, job: JobSpec) -> _Changes:
    if not name:
        raise JobError("--model: write --models NAME to choose one, or `--set MODEL.params.checkpoint=NAME`")
    if name in (*(model.name for model in job.models), *catalog.names()):
        raise JobError(f"--model {name}: write `--models {name}`")
    models = [model for model in job.models if _takes(model, name)]
    return _set(f"--model {name}", models, "params.checkpoint", name)


def _takes(model: ModelSpec, checkpoint: str) -> bool:
    if "checkpoint" not in schema.dump(model.built):
        return False
    try:
        catalog.build(model.reference, {**model.params, "checkpoint": checkpoint})
    except SchemaError:
        return False
    return True


def _dataset(name: str, command: str, file: str) -> str:
    """Return the flags for the tables of the document; `both` takes two commands, each with a table of its own."""
    tables = [shlex.quote(f"train_{kind}") for kind in (["curated", "noisy"] if name in ("", "both") else [name])]
    lines = [f"consort {command} {file} --audio {table}.csv --set audio_root={table}" for table in tables]
    return f"--dataset: write `{' && '.join(lines)}`"
