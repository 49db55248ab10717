"""What an output folder holds, as text: the table of a run, and how to come by one vector per item."""

import collections
import pathlib
import typing as tp

from orchestrator.output.contexts import Contexts
from orchestrator.output.manifest import Line
from orchestrator.text import printable, table
from worker import catalog
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import Output

_Arrays = tp.Mapping[tuple[str, str], tp.Sequence[Line]]  # by model and output

_VECTOR = ["feature"]  # the axes of one


def show(root: pathlib.Path, arrays: _Arrays) -> str:
    """Return a table with a line for each output of each model: arrays, shape, type, frames a second, flags."""
    total = sum(map(len, arrays.values()))
    items = {line["item"] for lines in arrays.values() for line in lines}
    rows: list[tuple[str, ...]] = [("model", "output", "arrays", "shape", "type", "frames/s", "flags")]
    rows += [(model, output, *_cells(lines)) for (model, output), lines in sorted(arrays.items())]
    title = f"run {printable(str(root))}: {total} arrays of {len(items)} items"
    return f"{title}\n{table(rows)}" if arrays else title


def advise(name: tuple[str, str], arrays: _Arrays, contexts: Contexts) -> str:
    """Return how to get one vector per item: by what is here, else by what the model can give, else not at all."""
    model, output = name
    written = [f"{m}.{o}" for (m, o), lines in arrays.items() if m == model and _all_vectors(lines)]
    if written:
        return f"{written[0]} is one vector per item"
    declared = {o.name: o for o in _declared(arrays[name][0], contexts)}
    if output in declared and declared[output].poolable:
        return f"set `pooling: mean` of {model} and run the job again to get one vector"
    if output not in declared:
        return f"set `pooling: mean` if {model} takes it; `arrays({'.'.join(name)!r})` gives them one by one"
    vectors = [o.name for o in declared.values() if list(o.axes) == _VECTOR]
    if vectors:
        return f"set `outputs: [{output}, {vectors[0]}]` of {model} and run the job again: {vectors[0]} is one vector"
    return f"`arrays({'.'.join(name)!r})` gives them one by one"


def _cells(lines: tp.Sequence[Line]) -> tuple[str, ...]:
    flags = collections.Counter(flag for line in lines for flag in line.get("flags", ()))
    rates = {f"{line['frame_rate']:.6g}" if line["frame_rate"] else "" for line in lines}
    kinds = " | ".join(sorted({line["dtype"] for line in lines}))
    said = ", ".join(f"{flag} {count}" for flag, count in sorted(flags.items()))
    return str(len(lines)), _shape(lines), kinds, " | ".join(sorted(rates)), said


def _shape(lines: tp.Sequence[Line]) -> str:
    """Return the shape of all arrays; where sizes differ, the name of the axis."""
    axes = lines[0]["axes"]
    if any(line["axes"] != axes or len(line["shape"]) != len(axes) for line in lines):
        return "different ones"
    sizes = zip(*(line["shape"] for line in lines), strict=True)
    return f"[{', '.join(str(s[0]) if len(set(s)) == 1 else axis for axis, s in zip(axes, sizes, strict=True))}]"


def _all_vectors(lines: tp.Sequence[Line]) -> bool:
    return all(line["axes"] == _VECTOR and line.get("windows") is None for line in lines)


def _declared(line: Line, contexts: Contexts) -> tuple[Output, ...]:
    """Return the outputs of the model that wrote an array; none where it is not one of ours.

    A plug-in's code is not loaded for a manifest's sake.
    """
    context = contexts.read(line["context"])
    extractor, params = context.get("extractor", line["model"]), context.get("params", {})
    try:
        model = catalog.build(extractor, params) if extractor in catalog.names() else None
    except (SchemaError, UnknownExtractor, TypeError, AttributeError):
        return ()
    return model.outputs() if model else ()
