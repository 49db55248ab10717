"""The environments: folders with an `env.yaml`, hash-pinned locks and modules of their own.

Those of Consort stand in `images/`; a job may bring others, which lie anywhere.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import typing as tp

import worker
from orchestrator.errors import ConsortError, EnvironmentUnavailable, JobError
from orchestrator.job import reading
from worker import fingerprint, schema
from worker.errors import SchemaError

IMAGES = pathlib.Path(worker.__file__).resolve().parent.parent
_OUTSIDE: dict[str, pathlib.Path] = {}  # the folders of `add`, by the names of the environments
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*\Z")  # as it becomes the name of an image


@dataclasses.dataclass(frozen=True)
class CudaSpec:
    """What the wheels of a lock for GPUs need, and the module that tries it.

    Args:
        module: of the environment; its `probe()` computes on the GPU and raises where that fails, its
            `empty_cache()`, if there is one, frees what the framework keeps of the GPU's memory.
        driver: the oldest of NVIDIA's drivers that will do, such as 580.
        sm: first and last architecture that the wheels have kernels for, such as [75, 120]; later ones of the last
            generation run them, too.
    """

    module: str
    driver: int
    sm: tp.List[int]

    def __post_init__(self) -> None:
        if self.driver < 1:
            raise ValueError("driver: expected the number of a driver, such as 580")
        if len(self.sm) != 2 or not 10 <= self.sm[0] <= self.sm[1]:
            raise ValueError("sm: expected the first and the last architecture, such as [75, 120]")

    @property
    def needs(self) -> str:
        """What a GPU must have, for people."""
        return f"driver {self.driver} or newer and a GPU of sm_{self.sm[0]} to sm_{self.sm[1]}"


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
    service: tp.Optional[str] = None  # in docker-compose.yml; None: the environment's name
    cuda: tp.Optional[CudaSpec] = None  # None: nothing is known, and nothing tried before a model is loaded

    def __post_init__(self) -> None:
        if self.cuda is not None and "cuda" not in self.locks:
            raise SchemaError("cuda", "there is no locks.cuda that would need it")
        if self.cuda is not None and self.cuda.module.partition(".")[0] not in self.modules:
            raise SchemaError("cuda.module", f"{self.cuda.module} is in none of `modules`")


@dataclasses.dataclass(frozen=True)
class Environment:
    """An environment of this checkout, or one that a job brings."""

    name: str
    folder: pathlib.Path
    spec: EnvironmentSpec

    @property
    def outside(self) -> bool:
        """Whether it lies outside the tree."""
        return self.folder.parent != IMAGES

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
    """Return the names of all environments of this checkout, sorted."""
    return sorted(path.parent.name for path in IMAGES.glob("*/env.yaml"))


def add(folders: tp.Iterable[str]) -> None:
    """Make `find` know environments that lie outside the tree, as `catalog.add_plugins` does for models.

    Args:
        folders: a job's `environments`; each is named as its folder.

    Raises:
        JobError: one is none, or has the name of another.
    """
    own: dict[str, pathlib.Path] = {}
    for index, folder in enumerate(folders):
        try:
            found = _read_outside(pathlib.Path(folder))
            if own.setdefault(found.name, found.folder) != found.folder:
                raise JobError(f"{folder}: {own[found.name]} has the same name; rename one of the folders")
        except ConsortError as error:
            raise JobError(f"environments[{index}]: {error}") from error
    _OUTSIDE.update(own)


def find(name: str) -> Environment:
    """Return an environment.

    Raises:
        JobError: there is none of that name.
        ConsortError: its `env.yaml` is damaged.
    """
    folder = IMAGES / name if name in names() else _OUTSIDE.get(name)
    if folder is None:
        raise JobError(f"environment {name!r}: {schema.unknown(name, [*names(), *_OUTSIDE], 'environment')}")
    return _read(folder)


def at(place: str) -> Environment:
    """Return the environment of a name, or of a folder, such as a person has typed.

    Raises:
        ConsortError: it is neither, or is damaged.
    """
    if place in names() or not os.path.isdir(place):
        return find(place)
    folder = pathlib.Path(place).resolve()
    return find(folder.name) if folder.parent == IMAGES else _read_outside(pathlib.Path(place))


def _read(folder: pathlib.Path) -> Environment:
    try:
        values = reading.parse_yaml((folder / "env.yaml").read_text("utf-8"))
        return Environment(folder.name, folder, schema.build(EnvironmentSpec, values))
    except (SchemaError, JobError) as error:
        raise ConsortError(f"{folder.name}/env.yaml: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConsortError(f"{folder.name}/env.yaml: cannot be read: {error}") from error


def _read_outside(folder: pathlib.Path) -> Environment:
    """Return an environment of a folder that no test of this checkout has looked at.

    Raises:
        ConsortError: what it lacks.
    """
    folder = pathlib.Path(os.path.abspath(folder))  # a link is named as it is written
    if not (folder / "env.yaml").is_file():
        raise JobError(f"{folder}: holds no env.yaml; those in {IMAGES} are examples")
    if folder.name in names():
        raise JobError(f"{folder}: Consort has an environment {folder.name} of its own; rename the folder")
    if not _NAME.match(folder.name):
        raise JobError(f"{folder}: images get its name, so it may hold only a-z, 0-9, and . _ - between them")
    found = _read(folder)
    for variant, lock in found.spec.locks.items():
        if os.path.basename(lock) != lock or not (folder / lock).is_file():
            raise JobError(
                f"{folder.name}/env.yaml: locks.{variant}: no file {lock} beside it; images/lock.sh makes it"
            )
    for module in found.spec.modules:
        if not (module.isidentifier() and (folder / module).is_dir()):
            raise JobError(f"{folder.name}/env.yaml: modules: no folder {module} beside it")
        for path in (folder / module).rglob("*.py"):
            if not path.is_file():
                raise JobError(f"{path.relative_to(folder.parent)}: is no file; a FIFO or a lost link is waited for")
    return found
