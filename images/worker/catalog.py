"""Find extractors: a file in `worker/extractors/`, or `module:Class` in a plugin folder.

The name of the file is the name of the model; there is no registration.
"""

import importlib
import inspect
import pkgutil
import sys
import typing as tp

from worker import extractors, schema
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import Extractor, Output, WindowChoice


def names() -> tp.List[str]:
    """Return the names of the built-in models, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(extractors.__path__) if not m.name.startswith("_"))


def add_plugins(folders: tp.Iterable[str]) -> None:
    """Make `module:Class` find modules in `folders`."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)


def find(reference: str) -> tp.Type[Extractor]:
    """Return the extractor class for `crepe`, or for `my_file:MyModel` from a plugin folder.

    Raises:
        UnknownExtractor: nothing has that name; the message lists what has.
    """
    module_name, _, class_name = reference.partition(":")
    if class_name:
        return _plugin(module_name, class_name)
    if reference not in names():
        raise UnknownExtractor("{!r}: {}".format(reference, schema.unknown(reference, names(), "model")))
    module = importlib.import_module("{}.{}".format(extractors.__name__, reference))
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Extractor) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UnknownExtractor("{} must define one Extractor, found {}".format(module.__name__, len(found)))
    return found[0]


def build(
    reference: str,
    params: tp.Mapping[str, tp.Any],
    outputs: tp.Sequence[str] = (),
    path: str = "params",
    window: tp.Optional[tp.Mapping[str, tp.Any]] = None,
    layout: str = "per-item",
) -> Extractor:
    """Return the extractor with checked parameters and the outputs that are wanted of it.

    Args:
        reference: as for `find`.
        params: the job file's parameters.
        outputs: names of the wanted outputs; none means the primary one alone.
        path: where `params` stands in the job file, for the errors.
        window: the job's `window`, for models that take one.
        layout: per-item, or per-window for one array per window.

    Raises:
        UnknownExtractor, SchemaError: what the job file has wrong.
    """
    extractor = schema.build(find(reference), dict(params), path)
    if window is not None:
        where = path.replace("params", "window")
        if not extractor.takes_window:
            raise SchemaError(where, "{} does not take one; its parameters set its framing".format(reference))
        extractor.window = schema.build(WindowChoice, dict(window), where)
    extractor.layout = layout
    known = [output.name for output in extractor.outputs()]
    for name in outputs:
        if name not in known:
            raise SchemaError(
                path.replace("params", "outputs"), "{!r}: {}".format(name, schema.unknown(name, known, "output"))
            )
    extractor.wanted = frozenset(outputs or known[:1])
    _try_framing(extractor, path.replace("params", "window"))
    return extractor


def _try_framing(extractor: Extractor, path: str) -> None:
    """A window that a model cannot have is refused with the job, not in the middle of it."""
    try:
        extractor.framing()
    except ValueError as error:
        raise SchemaError(path, str(error)) from error


def wanted(extractor: Extractor) -> tp.List[Output]:
    """Return the declarations of the outputs that are wanted, the primary one first."""
    return [output for output in extractor.outputs() if output.name in extractor.wanted]


def _plugin(module_name: str, class_name: str) -> tp.Type[Extractor]:
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever a user's file raises
        raise UnknownExtractor("{}:{}: {}".format(module_name, class_name, error)) from error
    if not (inspect.isclass(found) and issubclass(found, Extractor)):
        raise UnknownExtractor("{}:{} is not an Extractor".format(module_name, class_name))
    if inspect.isabstract(found) or not hasattr(found, "__dataclass_fields__"):
        raise UnknownExtractor("{}:{} is abstract, or lacks @dataclass".format(module_name, class_name))
    return found
