"""Strict conversion between plain JSON/YAML values and dataclasses.

The host uses it for job files and the worker for shards, so both sides refuse the same mistakes with
the same words. Every error begins with the path of the value: `models[1].params.step_ms`.
"""

import dataclasses
import difflib
import typing as tp

from worker.errors import SchemaError

T = tp.TypeVar("T")


def build(cls: tp.Type[T], data: tp.Any, path: str = "") -> T:
    """Return `cls(**data)` after checking every name, type, choice and range.

    Args:
        cls: a dataclass; its nested dataclasses are built too.
        data: a mapping of plain values.
        path: where `data` stands, for the errors.

    Raises:
        SchemaError: an unknown, missing or ill-typed key, or a value that `cls` itself refuses.
    """
    if not isinstance(data, dict):
        raise SchemaError(path, "expected a mapping, got {}".format(_describe(data)))
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise SchemaError(join(path, str(key)), unknown(str(key), fields))
    hints = tp.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in data:
            where = join(path, name)
            values[name] = _restrict(field, _convert(hints[name], data[name], where), where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(join(path, name), "missing")
    try:
        return cls(**values)
    except SchemaError:
        raise
    except ValueError as error:
        raise SchemaError(path, str(error)) from error


def dump(value: tp.Any) -> tp.Any:
    """Return `value` as plain mappings, lists and scalars; a field that is sparse is left out where it is None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: dump(item) for f, item in given if item is not None or not f.metadata.get("sparse")}
    if isinstance(value, dict):
        return {str(key): dump(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(item) for item in value]
    return value


def join(path: str, name: str) -> str:
    """Return the path of the key `name` below `path`."""
    return "{}.{}".format(path, name) if path else name


def unknown(key: str, known: tp.Iterable[str], noun: str = "key") -> str:
    """Return the words for a name that is not one of `known`, with the likeliest one meant."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    hint = "; did you mean {}?".format(close[0]) if close else ""
    return "unknown {}{}; known {}s: {}".format(noun, hint, noun, ", ".join(names) or "none")


def _restrict(field: "dataclasses.Field[tp.Any]", value: tp.Any, path: str) -> tp.Any:
    choices = field.metadata.get("choices")
    if choices is not None and value not in choices:
        allowed = ", ".join(str(c) for c in dict.fromkeys(choices))
        raise SchemaError(path, "{!r} is not one of {}".format(value, allowed))
    limits = field.metadata.get("range")
    if limits is not None and value is not None and not limits[0] <= value <= limits[1]:
        raise SchemaError(path, "{!r} is not between {} and {}".format(value, *limits))
    return value


def _convert(hint: tp.Any, value: tp.Any, path: str) -> tp.Any:
    if hint is tp.Any:
        return value
    origin = getattr(hint, "__origin__", None)
    args: tp.Any = getattr(hint, "__args__", ())
    if origin is tp.Union:
        return _convert_union(args, value, path)
    if origin in (list, tuple, tp.List):
        if not isinstance(value, (list, tuple)):
            raise SchemaError(path, "expected a list, got {}{}".format(_describe(value), _listed(value)))
        return [_convert(args[0], v, "{}[{}]".format(path, i)) for i, v in enumerate(value)]
    if origin in (dict, tp.Dict):
        if not isinstance(value, dict):
            raise SchemaError(path, "expected a mapping, got {}".format(_describe(value)))
        return {str(k): _convert(args[1], v, join(path, str(k))) for k, v in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, path)
    return _convert_scalar(hint, value, path)


def _convert_union(args: tp.Sequence[tp.Any], value: tp.Any, path: str) -> tp.Any:
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    for hint in choices[:-1]:
        try:
            return _convert(hint, value, path)
        except SchemaError:
            continue
    return _convert(choices[-1], value, path)


def _convert_scalar(hint: tp.Any, value: tp.Any, path: str) -> tp.Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise SchemaError(path, "expected a finite number, got one of too many digits") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SchemaError(path, "expected {}, got {}".format(_KINDS.get(hint, hint), _describe(value)))
    if hint is float and not abs(value) < float("inf"):
        raise SchemaError(path, "expected a finite number, got {!r}".format(value))
    return value


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _listed(value: tp.Any) -> str:
    """Return how a text is written as a list, in YAML."""
    if not isinstance(value, str):
        return ""
    return "; write [{}]".format(value if value.replace("_", "").isalnum() else '"{}"'.format(value))


def _describe(value: tp.Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return repr(value)
