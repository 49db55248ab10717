"""The environments: folders in `images/` with an `env.yaml`, hash-pinned locks and modules of their own."""

import dataclasses
import functools
import hashlib
import pathlib
import typing as tp

import worker
from orchestrator.errors import ConsortError, EnvironmentUnavailable, JobError
from orchestrator.job import spec
from worker import fingerprint, schema
from worker.errors import SchemaError

IMAGES = pathlib.Path(worker.__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class EnvironmentSpec:
    """One environment as its `env.yaml` says it."""

    python: str
    gpu: str
    base_image: str
    locks: tp.Dict[str, str]
    probes: tp.List[str]
    modules: tp.List[str] = dataclasses.field(default_factory=list)
    variables: tp.Dict[str, str] = dataclasses.field(default_factory=dict)
    extra_index: tp.Dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Environment:
    """An environment of this checkout."""

    name: str
    folder: pathlib.Path
    spec: EnvironmentSpec

    def lock(self, variant: str) -> pathlib.Path:
        """Return the lock of a variant, cpu or cuda.

        Raises:
            EnvironmentUnavailable: it has no such variant.
        """
        if variant not in self.spec.locks:
            raise EnvironmentUnavailable(f"{self.name} has no {variant} variant; it has {', '.join(self.spec.locks)}")
        return self.folder / self.spec.locks[variant]

    def lock_sha256(self, variant: str) -> str:
        """Return the hash that names this environment wherever it is built."""
        return hashlib.sha256(self.lock(variant).read_bytes()).hexdigest()

    def worker_sha256(self) -> str:
        """Return the hash of all code that runs inside: the worker and the environment's modules."""
        return _code_sha256(str(IMAGES / "worker"), *(str(self.folder / module) for module in self.spec.modules))


@functools.cache
def _code_sha256(*folders: str) -> str:
    return fingerprint.sha256_of(folders)


def names() -> list[str]:
    """Return the names of all environments, sorted."""
    return sorted(path.parent.name for path in IMAGES.glob("*/env.yaml"))


def find(name: str) -> Environment:
    """Return an environment.

    Raises:
        JobError: there is none of that name.
        ConsortError: its `env.yaml` is damaged.
    """
    if name not in names():
        raise JobError(f"environment {name!r}: {schema.unknown(name, names(), 'environment')}")
    path = IMAGES / name / "env.yaml"
    try:
        return Environment(name, path.parent, schema.build(EnvironmentSpec, spec.parse_yaml(path.read_text("utf-8"))))
    except (SchemaError, JobError) as error:
        raise ConsortError(f"{path.parent.name}/env.yaml: {error}") from error
