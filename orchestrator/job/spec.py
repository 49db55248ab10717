"""The job: YAML and flags in, a checked `JobSpec` out. Reads the job file and nothing else.

Everything a job can have wrong is found here, before anything starts and without importing any
framework: unknown and duplicate keys, wrong types, parameters that a model refuses.
"""

import dataclasses
import functools
import os
import pathlib
import re
import typing as tp

import yaml

from orchestrator.errors import JobError
from worker import catalog, request, schema
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import WEIGHTS, Extractor, between, choice, is_own
from worker.work import pooling
from worker.work.formats import FORMATS

_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_DEVICE = re.compile(r"(auto|cpu|cuda(:\d+)?)\Z")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\Z", re.IGNORECASE)
_FOLDERS = ("audio", "audio_root", "output")
BELOW_ROOT = "docker compose sees what lies below ROOT: name that folder, or use `consort extract`"
SYNTHETIC = "synthetic"  # `audio:` of a job that is tried on a sine


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """One model of a job. `name` names the output folder; `extractor` is the same unless it is given."""

    name: str
    extractor: tp.Optional[str] = None
    params: tp.Dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    outputs: tp.List[str] = dataclasses.field(default_factory=list)
    window: tp.Optional[tp.Dict[str, tp.Any]] = None
    pooling: tp.Optional[str] = None
    dtype: str = choice("float32", "float16")
    precision: str = choice("float32")
    batch_size: tp.Optional[int] = between(None, 1, 65536)
    format: str = dataclasses.field(default="npy", metadata={"choices": FORMATS.keys()})
    layout: str = choice("per-item", "per-window", "table")

    @property
    def reference(self) -> str:
        """The extractor's name or `module:Class`."""
        return self.extractor or self.name

    @property
    def folders(self) -> list[str]:
        """The folders that its arrays can be in: one for each output."""
        return [self.name, *(f"{self.name}.{output.name}" for output in self.built.outputs())]

    @functools.cached_property
    def built(self) -> Extractor:
        """The extractor with its parameters and wanted outputs, made once.

        Raises:
            JobError: a parameter or output that it does not have.
        """
        try:
            return catalog.build(self.reference, self.params, request.read(self.outputs, self.window, self.layout))
        except SchemaError as error:
            raise JobError(str(error)) from error
        except UnknownExtractor as error:
            raise JobError(f"{'extractor' if self.extractor else 'name'}: {error}") from error


@dataclasses.dataclass(frozen=True)
class JobSpec:
    """What the user asked for. Paths are absolute once `read` is through."""

    audio: str
    output: str
    models: tp.List[ModelSpec]
    root: tp.Optional[str] = None
    audio_root: tp.Optional[str] = None
    include: tp.List[str] = dataclasses.field(default_factory=list)
    exclude: tp.List[str] = dataclasses.field(default_factory=list)
    path_column: str = "path"
    plugins: tp.List[str] = dataclasses.field(default_factory=list)
    environments: tp.List[tp.Any] = dataclasses.field(default_factory=list)  # folders, once `check` is through
    runtime: str = choice("auto", "docker", "venv")
    engine: str = choice("local")
    devices: tp.Union[tp.List[tp.Any], str] = "auto"
    resume: str = choice("key", "strict", "exists", "never")
    limit: tp.Optional[int] = between(None, 0, 10**9)
    retry_failed: bool = False
    workers: tp.Optional[int] = between(None, 1, 1024)
    memory: tp.Union[int, str, None] = None
    timeout_per_item: tp.Optional[float] = between(None, 1, 10**7)
    licence_policy: str = choice("any", "commercial")

    @property
    def folders(self) -> list[str]:
        """The folders of its models, below the output folder."""
        return [folder for model in self.models for folder in model.folders]

    @property
    def memory_bytes(self) -> int | None:
        """The memory granted to a worker; None lets it take what is free."""
        if self.memory is None:
            return None
        match = _SIZE.match(str(self.memory).strip())
        size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
        if size < 1:
            raise JobError(f"memory: {self.memory!r} is no size; write 8GB or a number of bytes")
        return size


def read(path: str | None, changes: tp.Sequence[tuple[str, tp.Any]] = ()) -> JobSpec:
    """Return the checked job.

    Args:
        path: a job file, or None where the flags are the job.
        changes: (key path, value) pairs that override it: `("limit", 3)`, `("crepe.params.viterbi", False)`.

    Raises:
        JobError: one line that begins with the file and the path of the key.
    """
    raw = _read_yaml(path) if path else {}
    source = path or "flags"
    try:
        roots = [_place_change({}, key, value) for key, value in changes if key == "root"]
        raw = _place({**raw, "root": roots[-1]} if roots and isinstance(raw, dict) else raw, path)
        for key, value in [(key, _place_change(raw, key, value)) for key, value in changes]:
            raw = change(raw, key, value)
        return check(raw)
    except (SchemaError, JobError) as error:
        raise JobError(f"{source}: {error}") from error


def check(raw: tp.Any) -> JobSpec:
    """Return the job of plain values, with every model's parameters tried out.

    Raises:
        JobError, SchemaError: what is wrong, and where.
    """
    if not isinstance(raw, dict):
        raise JobError("a job is a mapping with the keys audio, output and models")
    models = raw.get("models")
    if isinstance(models, list):
        raw = {**raw, "models": [{"name": m} if isinstance(m, str) else m for m in models]}
    job = schema.build(JobSpec, raw)
    if not job.models:
        raise JobError(f"models: none chosen; known models: {', '.join(catalog.names())}")
    job.memory_bytes  # noqa: B018 - refuses a wrong size now
    if isinstance(job.devices, str) and not _DEVICE.match(job.devices):
        raise JobError(f"devices: {job.devices!r} is not one of auto, cpu, cuda, cuda:N, or a list of GPUs")
    if isinstance(job.devices, list) and not job.devices:
        raise JobError("devices: the list is empty; write cpu, or name GPUs")
    for index, folder in enumerate(job.plugins):
        if not os.path.isdir(folder):
            raise JobError(f"plugins[{index}]: {folder} is no folder")
    catalog.add_plugins(job.plugins)
    for index, entry in enumerate(job.environments):
        _check_environment(entry, f"environments[{index}]")
    seen: set[str] = set()
    for index, model in enumerate(job.models):
        _check_model(model, f"models[{index}]", job.licence_policy)
        if model.name.casefold() in seen:
            raise JobError(f"models[{index}].name: {model.name!r} names two models; outputs would collide")
        seen.add(model.name.casefold())
    return job


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
    raw = _read_yaml(path)
    known = _names(raw) if isinstance(raw, dict) else []
    return [name for name in names if name not in known]


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


def _check_model(model: ModelSpec, path: str, policy: str) -> None:
    if not _NAME.match(model.name):
        raise JobError(f"{path}.name: {model.name!r} may hold only letters, digits, _ and -")
    try:
        extractor = model.built
    except JobError as error:
        raise JobError(f"{path}.{error}") from error
    _check_layout(model, extractor, path)
    if model.pooling is not None:
        try:
            parts = pooling.parse(model.pooling)
        except ValueError as error:
            raise JobError(f"{path}.pooling: {error}") from error
        rigid = [o.name for o in catalog.wanted(extractor) if not o.poolable]
        if parts and rigid:
            raise JobError(f"{path}.pooling: {', '.join(rigid)} of {model.reference} cannot be pooled; use none")
    barred = sorted({c.licence for c in extractor.checkpoints() if not c.commercial})
    if policy == "commercial" and barred:
        raise JobError(f"{path}: licence_policy is commercial, but its weights are {', '.join(barred)}")


def _check_environment(entry: tp.Any, path: str) -> None:
    if isinstance(entry, dict):
        raise JobError(f"{path}: an interpreter of your own comes in a later version; give a folder with an env.yaml")
    if not isinstance(entry, str):
        raise JobError(f"{path}: {entry!r} is no folder; give one with an env.yaml and locks")
    if not os.path.isdir(entry):
        raise JobError(f"{path}: {entry} is no folder")


def _check_layout(model: ModelSpec, extractor: Extractor, path: str) -> None:
    wanted = catalog.wanted(extractor)
    if model.layout == "per-window" and not any(output.axes[0] == "window" for output in wanted):
        raise JobError(f"{path}.layout: {model.reference} has no output per window; `window:` of encodec makes them")
    if model.layout == "table" and not (wanted[0].dtype.startswith("int") and wanted[0].axes[-1] == "time"):
        raise JobError(f"{path}.layout: a table holds tokens, and {wanted[0].name} of {model.reference} are none")


def _place(raw: tp.Any, path: str | None) -> dict[str, tp.Any]:
    """Make the paths of a job file absolute: they are relative to `root`, by default the file's folder."""
    if not isinstance(raw, dict):
        raise JobError("a job is a mapping with the keys audio, output and models")
    base = _base(raw, path)
    placed = {k: absolute(v, base) if k in _FOLDERS and _is_path(k, v) else v for k, v in raw.items()}
    for key in ("plugins", "environments"):
        if isinstance(raw.get(key), list):
            placed[key] = [absolute(entry, base) if isinstance(entry, str) else entry for entry in raw[key]]
    if isinstance(raw.get("plugins"), list):
        # their models say which of their parameters are paths; what is no folder is refused later
        catalog.add_plugins(p for p in placed["plugins"] if isinstance(p, str) and os.path.isdir(p))
    if isinstance(raw.get("models"), list):
        placed["models"] = [_place_model(m, base) for m in raw["models"]]
    return placed


def base(path: str) -> pathlib.Path:
    """Return what the relative paths of a job file are relative to.

    Raises:
        JobError: it is no job file.
    """
    raw = _read_yaml(path)
    return _base(raw if isinstance(raw, dict) else {}, path)


def _base(raw: dict[str, tp.Any], path: str | None) -> pathlib.Path:
    folder, root = pathlib.Path(path).resolve().parent if path else pathlib.Path.cwd(), raw.get("root")
    return folder / os.path.expanduser(root) if isinstance(root, str) else folder


def _is_path(key: str, value: tp.Any) -> bool:
    return isinstance(value, str) and not (key == "audio" and value == SYNTHETIC)


def _place_change(raw: dict[str, tp.Any], key: str, value: tp.Any) -> tp.Any:
    """A path that a flag gives is relative to the current folder, wherever the job file is."""
    here = pathlib.Path.cwd()
    if key == "root" and isinstance(value, str):
        return absolute(value, here)
    name, *inner = key.split(".")
    if not inner:
        return _place({name: value}, None)[name]
    models = raw.get("models")
    named = [m for m in models if isinstance(m, dict) and m.get("name") == name] if isinstance(models, list) else []
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
    if not isinstance(value, str):
        return False
    return key in own or (key == "checkpoint" and is_own(value, WEIGHTS))


def absolute(path: str, base: str | pathlib.Path) -> str:
    """Return `path` as an absolute one, relative to `base`, without following links."""
    return os.path.abspath(os.path.join(base, os.path.expanduser(path)))


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


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


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
