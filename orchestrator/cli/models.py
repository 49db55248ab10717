"""`consort models`: parameters with defaults, outputs, licences; the README's table. No framework is imported."""

import argparse
import dataclasses
import inspect
import typing as tp

from orchestrator import errors
from orchestrator.cli import flags
from orchestrator.errors import JobError
from orchestrator.text import table
from worker import catalog
from worker.errors import UnknownExtractor
from worker.extractor import Extractor, Output


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "models", "list the models, or show one with its parameters and outputs", run)
    verb.add_argument("name", nargs="?", help="show only this one")
    verb.add_argument("--markdown", action="store_true", help="print the README's table")


def run(arguments: argparse.Namespace) -> int:
    if arguments.name:
        print(detail(arguments.name))
    else:
        print(markdown() if arguments.markdown else overview())
    return errors.OK


def overview() -> str:
    """Return every model with environment, parameters and defaults, outputs and licence."""
    blocks = []
    width = max(map(len, catalog.names()))
    for name in catalog.names():
        model = _default(name)
        fields = dataclasses.fields(model)  # type: ignore[arg-type]
        params = " ".join(f"{f.name}={_yaml(getattr(model, f.name))}" for f in fields)
        outputs = ", ".join(f"{o.name} {_shape(o)}" for o in model.outputs())
        blocks.append(
            f"{name:<{width}} {_summary(model)}\n"
            f"{'':<{width}} {model.environment}, {model.sample_rate} Hz; weights: {_licence(model)}\n"
            f"{'':<{width}} parameters: {params or 'none'}{'; takes `window`' if model.takes_window else ''}\n"
            f"{'':<{width}} outputs: {outputs}"
        )
    blocks.append("`consort models NAME` explains one; the first output is written without being asked for")
    return "\n\n".join(blocks)


def detail(name: str) -> str:
    """Return everything about one model.

    Raises:
        JobError: there is none of that name.
    """
    try:
        model = _default(name)
    except UnknownExtractor as error:
        raise JobError(str(error)) from error
    lines = [inspect.cleandoc(model.__doc__ or ""), ""]
    lines.append(f"environment {model.environment}, {model.sample_rate} Hz, {model.audio_channels} channel(s)")
    lines.append(f"weights     {_licence(model)}")
    lines.append("\nparameters (default)")
    rows = [("  " + f.name, _yaml(getattr(model, f.name)), _allowed(f)) for f in dataclasses.fields(model)]  # type: ignore[arg-type]
    lines.append(table(rows) if rows else "  none")
    if model.takes_window:
        lines.append("\nbeside them the job may say `window: {seconds, hop_seconds, pad: reflect | zero}`")
    lines.append("\noutputs (the first is written without being asked for)")
    lines.append(table([("  " + o.name, _shape(o), o.dtype, _rate(o), o.doc) for o in model.outputs()]))
    return "\n".join(lines)


def markdown() -> str:
    """Return the table of the README."""
    lines = ["| model | environment | rate | outputs | frames/s | licence of the weights |", "|---" * 6 + "|"]
    for name in catalog.names():
        model = _default(name)
        outputs = model.outputs()
        shapes = ", ".join(f"`{o.name}` {_shape(o)}" for o in outputs)
        cells = (name, model.environment, f"{model.sample_rate} Hz", shapes, _rate(outputs[0]), _licence(model))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _default(name: str) -> Extractor:
    return catalog.build(name, {}).asked(outputs=frozenset())


def _yaml(value: object) -> str:
    """Return a default as it would stand in the job file."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)  # lists look the same in YAML


def _allowed(field: "dataclasses.Field[object]") -> str:
    if "choices" in field.metadata:
        return " | ".join(str(c) for c in dict.fromkeys(field.metadata["choices"]))
    if "range" in field.metadata:
        return "{} to {}".format(*field.metadata["range"])
    if field.type is bool:
        return "true | false"
    return " | ".join(_kinds(field.type))


def _kinds(hint: tp.Any) -> list[str]:
    """Return the words for a type as it would be said of a value in the job file."""
    args: tuple[tp.Any, ...] = getattr(hint, "__args__", ())
    if getattr(hint, "__origin__", None) is tp.Union:
        return [word for part in args for word in _kinds(part)]
    if getattr(hint, "__origin__", None) is list:
        return ["list of " + " or ".join(_kinds(args[0])) + "s"]
    return [_KINDS.get(hint, getattr(hint, "__name__", str(hint)))]


_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


def _licence(model: Extractor) -> str:
    found = sorted({c.licence for c in model.checkpoints()})
    restricted = any(not c.commercial for c in model.checkpoints())
    return (", ".join(found) or "none needed") + (" (not commercial)" if restricted else "")


def _summary(model: Extractor) -> str:
    return (inspect.cleandoc(model.__doc__ or "").splitlines() or [""])[0].rstrip(".")


def _shape(output: Output) -> str:
    axes = zip(output.axes, output.shape, strict=True)
    return f"[{', '.join(axis[0].upper() if size is None else str(size) for axis, size in axes)}]"


def _rate(output: Output) -> str:
    return f"{output.frame_rate:.4g}" if output.frame_rate else "-"
