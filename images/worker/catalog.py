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
from worker.extractor import Extractor, Output
from worker.request import PLAIN, Request


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


def build(reference: str, params: tp.Mapping[str, tp.Any], request: Request = PLAIN, path: str = "") -> Extractor:
    """Return the extractor with checked parameters, and with what is asked of it: no outputs means the primary one.

    `path` is that of the model in the job file, for the errors.

    Raises:
        UnknownExtractor, SchemaError: what the job file has wrong.
    """
    found = schema.build(find(reference), dict(params), schema.join(path, "params"))
    if request.window is not None and not found.takes_window:
        words = "{} does not take one; its parameters set its framing".format(reference)
        raise SchemaError(schema.join(path, "window"), words)
    extractor = found.asked(**vars(request))
    known = [output.name for output in extractor.outputs()]
    for name in sorted(request.outputs.difference(known)):
        words = "{!r}: {}".format(name, schema.unknown(name, known, "output"))
        raise SchemaError(schema.join(path, "outputs"), words)
    if not request.outputs:
        extractor = extractor.asked(outputs=frozenset(known[:1]))
    try:
        extractor.framing()  # a window that a model cannot have is refused with the job, not in the middle of it
    except ValueError as error:
        raise SchemaError(schema.join(path, "window"), str(error)) from error
    return extractor


def wanted(extractor: Extractor) -> tp.List[Output]:
    """Return the declarations of the outputs that are wanted, the primary one first."""
    return [output for output in extractor.outputs() if extractor.request.wants(output.name)]


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
