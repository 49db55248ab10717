"""The models as text: what `consort models` prints and the README shows. No framework is imported."""

import dataclasses
import inspect

from orchestrator.report import table
from worker import catalog
from worker.extractor import Extractor, Output


def overview() -> str:
    """Return one line per model."""
    rows = [("model", "environment", "rate", "outputs", "licence of the weights", "what it is")]
    for name in catalog.names():
        model = _default(name)
        outputs = ", ".join(o.name for o in model.outputs())
        rows.append((name, model.environment, str(model.sample_rate), outputs, _licence(model), _summary(model)))
    return table(rows) + "\n\n`consort models NAME` shows parameters and shapes"


def detail(name: str) -> str:
    """Return everything about one model.

    Raises:
        catalog.UnknownExtractor: there is none of that name.
    """
    catalog.find(name)
    model = _default(name)
    lines = [inspect.cleandoc(model.__doc__ or ""), ""]
    lines.append(f"environment {model.environment}, {model.sample_rate} Hz, {model.channels} channel(s)")
    lines.append(f"weights     {_licence(model)}")
    lines.append("\nparameters (default)")
    rows = [("  " + f.name, repr(getattr(model, f.name)), _allowed(f)) for f in dataclasses.fields(model)]  # type: ignore[arg-type]
    lines.append(table(rows) if rows else "  none")
    lines.append("\noutputs (the first is written without being asked for)")
    lines.append(table([("  " + o.name, _shape(o), o.dtype, _rate(o), o.doc) for o in model.outputs()]))
    return "\n".join(lines)


def markdown() -> str:
    """Return the table of the README."""
    lines = [
        "| model | environment | rate | outputs | frames/s | licence of the weights |",
        "|---|---|---|---|---|---|",
    ]
    for name in catalog.names():
        model = _default(name)
        outputs = model.outputs()
        shapes = ", ".join(f"`{o.name}` {_shape(o)}" for o in outputs)
        cells = (name, model.environment, f"{model.sample_rate} Hz", shapes, _rate(outputs[0]), _licence(model))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _default(name: str) -> Extractor:
    model = catalog.build(name, {})
    model.wanted = frozenset()
    return model


def _allowed(field: "dataclasses.Field[object]") -> str:
    if "choices" in field.metadata:
        return " | ".join(str(c) for c in dict.fromkeys(field.metadata["choices"]))
    if "range" in field.metadata:
        return "{} to {}".format(*field.metadata["range"])
    return str(getattr(field.type, "__name__", field.type))


def _licence(model: Extractor) -> str:
    found = sorted({c.licence for c in model.checkpoints()})
    restricted = any(not c.commercial for c in model.checkpoints())
    return (", ".join(found) or "none needed") + (" (not commercial)" if restricted else "")


def _summary(model: Extractor) -> str:
    return (inspect.cleandoc(model.__doc__ or "").splitlines() or [""])[0].rstrip(".")


def _shape(output: Output) -> str:
    names = [
        axis[0].upper() if size is None else str(size) for axis, size in zip(output.axes, output.shape, strict=True)
    ]
    return f"[{', '.join(names)}]"


def _rate(output: Output) -> str:
    return f"{output.frame_rate:.4g}" if output.frame_rate else "-"
