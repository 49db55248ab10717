"""Virtual environments on this host: no daemon, no root."""

import os
import pathlib
import typing as tp

from orchestrator import files
from orchestrator.environments import definitions, venvs
from orchestrator.environments.definitions import IMAGES, Environment
from orchestrator.running.runtimes.base import MISSING, READY, THREADS, Command, Mounts, Resources, Runtime
from orchestrator.weights.store import Weights
from worker.protocol import Shard


class VenvRuntime(Runtime):
    """Starts `<environment>/bin/python -m worker` with a scrubbed environment and an empty folder."""

    name = "venv"

    def __init__(self, log: pathlib.Path | None = None) -> None:
        self.log = log

    @classmethod
    def open(cls) -> "VenvRuntime":
        return cls()

    def state(self, environment: Environment, variant: str) -> str:
        return READY if venvs.built(environment, variant) else MISSING

    def place(self, environment: Environment, variant: str) -> str:
        return str(venvs.folder(environment, variant))

    def size(self, environment: Environment, variant: str) -> int | None:
        folder = venvs.folder(environment, variant)
        return files.size_of(folder) if folder.is_dir() else None

    def remove(self, environment: Environment) -> list[str]:
        return [str(path) for path in venvs.remove(environment)]

    def build(self, environment: Environment, variant: str, say: tp.Callable[[str], None]) -> None:
        log = self.log / f"build-{environment.name}.log" if self.log else None
        venvs.build(environment, variant, say, log)

    def command(
        self, shard: Shard, mounts: Mounts, file: pathlib.Path, events: pathlib.Path, resources: Resources
    ) -> Command:
        environment = definitions.find(shard.environment)
        env = {
            **_variables(environment, mounts.scratch),
            **THREADS,
            **environment.spec.variables,
            "CONSORT_AUDIO": mounts.audio,
            "CONSORT_OUTPUT": mounts.output,
            "CONSORT_WEIGHTS": mounts.weights,
            "CONSORT_SCRATCH": mounts.scratch,
            "CONSORT_FFMPEG": mounts.ffmpeg,
            "CONSORT_EVENTS": str(events),
            "CONSORT_MODULES": " ".join(environment.spec.modules),
            "CONSORT_GPUS": ",".join(resources.gpus),
            **_visible(resources.gpus),
        }
        python = venvs.python(environment, shard.variant)
        return Command([str(python), "-m", "worker", str(file)], env, mounts.scratch)


def module_command(
    environment: Environment,
    variant: str,
    arguments: list[str],
    scratch: str,
    threads: int,
    gpus: tp.Sequence[str] = (),
) -> Command:
    """Return the command that runs a module of an environment by itself: `arguments` follow `python -m`.

    Args:
        environment: built.
        variant: cpu or cuda.
        arguments: the module's name, and what it is told.
        scratch: an empty folder.
        threads: cores that it may take, as nothing else runs beside it.
        gpus: UUIDs of those that it may see.
    """
    cores = {name: str(threads) for name in THREADS}
    env = {**_variables(environment, scratch), **cores, **environment.spec.variables, **_visible(gpus)}
    return Command([str(venvs.python(environment, variant)), "-m", *arguments], env, scratch)


def _visible(gpus: tp.Sequence[str]) -> dict[str, str]:
    """Return what hides all other GPUs; without any, all of them. They are numbered as nvidia-smi does."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _variables(environment: Environment, scratch: str) -> dict[str, str]:
    """Return a scrubbed environment in which the worker and the environment's modules are found."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
    return {
        **kept,
        "HOME": scratch,
        "PYTHONPATH": _path(environment),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",  # what is printed before a crash must reach the log
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def variables_for_users(environment: Environment) -> dict[str, str]:
    """Return what a person's own script needs to import the worker and the environment's modules."""
    weights = Weights()
    own = {"PYTHONPATH": _path(environment), "PYTHONNOUSERSITE": "1"}
    variables = {**os.environ, **environment.spec.variables, **own}
    variables["CONSORT_WEIGHTS"] = str(weights.root)
    decoder = weights.program()
    return {**variables, "CONSORT_FFMPEG": decoder} if decoder else variables


def _path(environment: Environment) -> str:
    return os.pathsep.join([str(IMAGES), str(environment.folder)])
