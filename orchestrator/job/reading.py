"""From a job file and flags to a checked job: YAML is read, flags set its keys, paths become absolute."""

import dataclasses
import os
import pathlib
import re
import typing as tp

import yaml

from orchestrator.errors import JobError
from orchestrator.job import spec
from orchestrator.job.spec import JobSpec
from worker import catalog, schema
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import WEIGHTS, is_own

_FOLDERS = ("audio", "audio_root", "output")


def read(path: str | None, changes: tp.Sequence[tuple[str, tp.Any]] = ()) -> JobSpec:
    """Return the checked job.

    Args:
        path: a job file, or None where the flags are the job.
        changes: (key path, value) pairs that override it: `("limit", 3)`, `("crepe.params.viterbi", False)`.

    Raises:
        JobError: one line that begins with the file and the path of the key.
    """
    raw = _read_yaml(path) if path else {}
    try:
        return spec.check(_changed(raw, path, changes))
    except (SchemaError, JobError) as error:
        raise JobError(f"{path or 'flags'}: {error}") from error


def differences(path: str, changes: tp.Sequence[tuple[str, tp.Any]]) -> list[tuple[str, tp.Any, tp.Any]]:
    """Return what `changes` make of a job that `read` has taken: the key, what its file says and what holds instead.

    None stands for what is not said. The models come first, as the list of their names.
    """
    after = _changed(_read_yaml(path), path, changes)
    before = _place(_read_yaml(path), path)
    old, new = _flat(before), _flat(after)
    whole = tuple(f"{name}." for name in {*_names(before)} ^ {*_names(after)})  # left out or added
    keys = [key for key in {**old, **new} if not key.startswith(whole)]
    found = [("models", _names(before), _names(after)), *((key, old.get(key), new.get(key)) for key in keys)]
    return [one for one in found if one[1] != one[2]]


def _changed(raw: tp.Any, path: str | None, changes: tp.Sequence[tuple[str, tp.Any]]) -> dict[str, tp.Any]:
    """Return the plain values of a job with absolute paths and with `changes`."""
    roots = [_place_change({}, key, value) for key, value in changes if key == "root"]
    placed = _place({**raw, "root": roots[-1]} if roots and isinstance(raw, dict) else raw, path)
    keys = {key for key, _ in changes}
    for key, value in [(key, _place_change(placed, key, value)) for key, value in changes]:
        placed = change(placed, key, value)
        hop = key.removesuffix("seconds") + "hop_seconds"
        if key.endswith(".window.seconds") and hop not in keys and _flat(placed).get(hop) is not None:
            placed = change(placed, hop, value)  # windows that touch, whatever the job says
    return placed


def _flat(raw: dict[str, tp.Any]) -> dict[str, tp.Any]:
    """Return every value of a job but its list of models, by the path of its key as `--set` takes it."""
    own = {key: value for key, value in raw.items() if key != "models"}
    models = {str(model.get("name")): model for model in _mappings(raw) if isinstance(model, dict)}
    return dict(_leaves("", {**own, **models}))


def _leaves(path: str, value: tp.Any) -> tp.Iterator[tuple[str, tp.Any]]:
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(schema.join(path, str(key)), inner)


def change(raw: dict[str, tp.Any], key: str, value: tp.Any) -> dict[str, tp.Any]:
    """Return `raw` with `key` set; a key path begins with a job's key or a model's name."""
    head, _, rest = key.partition(".")
    if not rest:
        return {**raw, head: _choose(raw, value) if head == "models" else value}
    models = _mappings(raw)
    names = _names(raw)
    if head not in names:
        raise JobError(f"--set {key}: {schema.unknown(head, [str(n) for n in names], 'model')}")
    models[names.index(head)] = _set(models[names.index(head)], rest.split("."), value)
    return {**raw, "models": models}


def lacking(path: str, names: tp.Iterable[str]) -> list[str]:
    """Return the names of models that the job file does not have; chosen, they are extractors with their defaults."""
    known = _names(_read_yaml(path))
    return [name for name in names if name not in known]


def base(path: str) -> pathlib.Path:
    """Return what the relative paths of a job file are relative to.

    Raises:
        JobError: it is no job file.
    """
    raw = _read_yaml(path)
    return _base(raw if isinstance(raw, dict) else {}, path)


def absolute(path: str, base: str | pathlib.Path) -> str:
    """Return `path` as an absolute one, relative to `base`, without following links."""
    return os.path.abspath(os.path.join(base, os.path.expanduser(path)))


def parse_yaml(text: str) -> tp.Any:
    """Return the plain values of a YAML text.

    Raises:
        JobError: not YAML, or a key twice; the message names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise JobError(f"{line}not valid YAML: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, too many digits
        raise JobError(f"not valid YAML: {' '.join(str(error).split())}") from error


def _choose(raw: dict[str, tp.Any], chosen: tp.Any) -> tp.Any:
    """Return the models of the job that are named, with all their settings and in its order, then the others."""
    own = _names(raw)
    if not own or not isinstance(chosen, list):
        return chosen
    chosen = list(dict.fromkeys(chosen)) if all(isinstance(model, str) for model in chosen) else chosen
    others = [model for model in chosen if model not in own]
    for index, name in enumerate(chosen):
        if isinstance(name, str) and ":" not in name and name not in (*own, *catalog.names()):
            known = dict.fromkeys([*own, *catalog.names()])
            raise JobError(f"models[{index}].name: {name!r}: {schema.unknown(name, map(str, known), 'model')}")
    models = zip(own, _mappings(raw), strict=True)
    return [*(model for name, model in models for _ in range(chosen.count(name))), *others]


def _mappings(raw: dict[str, tp.Any]) -> list[tp.Any]:
    """Return the models of a job, those that are only a name as mappings too."""
    models = raw.get("models")
    return [{"name": m} if isinstance(m, str) else m for m in models] if isinstance(models, list) else []


def _names(raw: dict[str, tp.Any]) -> list[tp.Any]:
    return [model.get("name") if isinstance(model, dict) else None for model in _mappings(raw)]


def _set(mapping: tp.Any, keys: list[str], value: tp.Any) -> dict[str, tp.Any]:
    if mapping is not None and not isinstance(mapping, dict):
        raise JobError(f"--set ...{'.'.join(keys)}: {mapping!r} has no keys of its own")
    known: dict[str, tp.Any] = dict(mapping or {})
    return {**known, keys[0]: value if len(keys) == 1 else _set(known.get(keys[0]), keys[1:], value)}


def _place(raw: tp.Any, path: str | None) -> dict[str, tp.Any]:
    """Make the paths of a job file absolute: they are relative to `root`, by default the file's folder."""
    if not isinstance(raw, dict):
        raise JobError("a job is a mapping with the keys audio, output and models")
    base = _base(raw, path)
    if raw.get("audio") == spec.SYNTHETIC and (base / spec.SYNTHETIC).exists():
        raise JobError("audio: synthetic is a sine that is made here; for what is called so write ./synthetic")
    paths = {key for key in _FOLDERS if isinstance(raw.get(key), str) and (key, raw[key]) != ("audio", spec.SYNTHETIC)}
    placed = {k: absolute(v, base) if k in paths else v for k, v in raw.items()}
    for key in ("plugins", "environments"):
        if isinstance(raw.get(key), list):
            placed[key] = [absolute(entry, base) if isinstance(entry, str) else entry for entry in raw[key]]
    if isinstance(raw.get("plugins"), list):
        # their models say which of their parameters are paths; what is no folder is refused later
        catalog.add_plugins(p for p in placed["plugins"] if isinstance(p, str) and os.path.isdir(p))
    if isinstance(raw.get("models"), list):
        placed["models"] = [_place_model(m, base) for m in raw["models"]]
    return placed


def _base(raw: dict[str, tp.Any], path: str | None) -> pathlib.Path:
    folder, root = pathlib.Path(path).resolve().parent if path else pathlib.Path.cwd(), raw.get("root")
    return folder / os.path.expanduser(root) if isinstance(root, str) else folder


def _place_change(raw: dict[str, tp.Any], key: str, value: tp.Any) -> tp.Any:
    """A path that a flag gives is relative to the current folder, wherever the job file is."""
    here = pathlib.Path.cwd()
    if key == "root" and isinstance(value, str):
        return absolute(value, here)
    name, *inner = key.split(".")
    if not inner:
        return _place({name: value}, None)[name]
    named = [m for m in _mappings(raw) if isinstance(m, dict) and m.get("name") == name]
    extractor = {"name": name, **{k: m[k] for m in named for k in ("extractor",) if k in m}}
    placed = _place_model({**extractor, **_set({}, inner, value)}, here)
    for part in inner:
        placed = placed[part]
    return placed


def _place_model(model: tp.Any, base: pathlib.Path) -> tp.Any:
    """Make the paths among a model's parameters absolute: they are relative to the job's root as well."""
    params = model.get("params") if isinstance(model, dict) else None
    if not isinstance(params, dict):
        return model
    own = _own_paths(model.get("extractor") or model.get("name"))
    placed = {k: absolute(v, base) if _is_own(k, v, own) else v for k, v in params.items()}
    return {**model, "params": placed}


def _own_paths(reference: tp.Any) -> set[str]:
    """Return the parameters of an extractor that are always paths; none of one that is not known."""
    try:
        found = catalog.find(reference) if isinstance(reference, str) else None
    except UnknownExtractor:
        return set()
    fields: dict[str, dataclasses.Field[tp.Any]] = getattr(found, "__dataclass_fields__", {})
    return {name for name, field in fields.items() if field.metadata.get("path")}


def _is_own(key: str, value: tp.Any, own: set[str]) -> bool:
    """Return whether a parameter names a file of the user's: a `checkpoint` may also be a name on a hub."""
    return isinstance(value, str) and (key in own or (key == "checkpoint" and is_own(value, WEIGHTS)))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses what it would otherwise silently drop: the first of two equal keys."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[tp.Any, tp.Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:  # before what `<<` brings, which a key of the mapping may override
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise JobError(f"line {key_node.start_mark.line + 1}: the key {key!r} is not text")
        if key in seen:
            raise JobError(f"line {key_node.start_mark.line + 1}: duplicate key {key!r}")
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


def _number(loader: _Loader, node: yaml.ScalarNode) -> tp.Any:
    """Refuse numbers that YAML reads otherwise than they look: `010` is 8 to it, and `10:30` is 630."""
    kind = "int" if node.tag.endswith(":int") else "float"
    value = loader.construct_yaml_int(node) if kind == "int" else loader.construct_yaml_float(node)
    if ":" in node.value or (kind == "int" and _OCTAL.match(node.value)):
        line = f"line {node.start_mark.line + 1}: "
        raise JobError(f"{line}YAML reads {node.value} as {value:g}; write {value:g}, or '{node.value}' if it is text")
    return value


_OCTAL = re.compile(r"[-+]?0[0-9_]+\Z")
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
# 1e3, which YAML 1.1 takes for text
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+\Z"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read_yaml(path: str) -> tp.Any:
    try:
        text = pathlib.Path(path).read_text("utf-8")
    except FileNotFoundError as error:
        raise JobError(f"{path}: no such job file; `ls config` shows the ones that come with Consort") from error
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read: {error}") from error
    try:
        raw = parse_yaml(text)
    except JobError as error:
        raise JobError(f"{path}: {error}") from error
    return {} if raw is None else raw
