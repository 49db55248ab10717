"""The job as it is worked with: a checked `JobSpec`. Whatever a job can have wrong is found here.

Before anything starts and without importing any framework: unknown keys, wrong types, parameters that a
model refuses.
"""

import dataclasses
import functools
import os
import re
import typing as tp

from orchestrator.errors import JobError
from worker import catalog, request, schema
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import Extractor, between, choice
from worker.formats import FORMATS
from worker.work import pooling

_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_DEVICE = re.compile(r"(auto|cpu|cuda(:\d+)?)\Z")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\Z", re.IGNORECASE)
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
    start_column: tp.Optional[str] = "start"
    end_column: tp.Optional[str] = "end"
    links: str = choice("inside", "refuse", "follow")
    plugins: tp.List[str] = dataclasses.field(default_factory=list)
    environments: tp.List[tp.Any] = dataclasses.field(default_factory=list)  # folders, once `check` is through
    runtime: str = "auto"  # this and the next: of the registries in `running`, which checks them
    engine: str = "local"
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
        for index, model in enumerate(raw["models"]):
            _refuse_parameters(model, f"models[{index}]")
    job = schema.build(JobSpec, raw)
    if not job.models:
        raise JobError(f"models: none chosen; known models: {', '.join(catalog.names())}")
    job.memory_bytes  # noqa: B018 - refuses a wrong size now
    _check_devices(job.devices)
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
            raise JobError(
                f"models[{index}].name: {model.name!r} names two models; "
                f"give each a name of its own: {{name: {model.name}_2, extractor: {model.reference}}}"
            )
        seen.add(model.name.casefold())
    return job


def _refuse_parameters(model: tp.Any, path: str) -> None:
    """Tell whoever writes a parameter beside `params` where it belongs."""
    reference = model.get("extractor", model.get("name")) if isinstance(model, dict) else None
    if reference not in catalog.names():
        return
    kind = catalog.find(str(reference))
    known: set[str] = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    for key in known.intersection(model) - {field.name for field in dataclasses.fields(ModelSpec)}:
        raise JobError(f"{path}.{key}: is a parameter of {reference}; write params: {{{key}: {model[key]}}}")


def _check_devices(devices: list[tp.Any] | str) -> None:
    if isinstance(devices, str) and not _DEVICE.match(devices):
        raise JobError(f"devices: {devices!r} is not one of auto, cpu, cuda, cuda:N, or a list of GPUs")
    if isinstance(devices, list) and not devices:
        raise JobError("devices: the list is empty; write cpu, or name GPUs")


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
            vectors = [o.name for o in extractor.outputs() if o.axes == ("feature",) and o.name not in rigid]
            instead = f", or `outputs: [{vectors[0]}]` without pooling: one vector for each item" if vectors else ""
            raise JobError(
                f"{path}.pooling: {', '.join(rigid)} of {model.reference} cannot be pooled; use none{instead}"
            )
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
