"""Virtual environments on this host: no daemon, no root."""

import os
import pathlib
import typing as tp

from orchestrator import files
from orchestrator.environments import definitions, venvs
from orchestrator.environments.definitions import IMAGES, Environment
from orchestrator.environments.leftovers import Leftover
from orchestrator.running.runtimes.base import MISSING, READY, Command, Mounts, Resources, Runtime
from orchestrator.weights.store import Weights
from worker.protocol import Shard


class VenvRuntime(Runtime):
    """Starts `<environment>/bin/python -m worker` with a scrubbed environment and an empty folder."""

    name = "venv"

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

    def leftovers(self, named: tp.Container[str]) -> tp.Iterable[Leftover]:
        return venvs.leftovers(named)

    def command(
        self, shard: Shard, mounts: Mounts, file: pathlib.Path, events: pathlib.Path, resources: Resources
    ) -> Command:
        environment = definitions.find(shard.environment)
        env = {
            **{name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ},
            "HOME": mounts.scratch,
            "PYTHONPATH": _path(environment),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",  # what is printed before a crash must reach the log
            "PYTHONDONTWRITEBYTECODE": "1",
            **resources.thread_variables,
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

    def script(
        self, environment: Environment, arguments: list[str], folder: str, gpus: tp.Sequence[str] = ()
    ) -> Command:
        weights = Weights()
        own = {"PYTHONPATH": _path(environment), "PYTHONNOUSERSITE": "1", "CONSORT_WEIGHTS": str(weights.root)}
        variables = {**os.environ, **environment.spec.variables, **own}
        if decoder := weights.program():
            variables["CONSORT_FFMPEG"] = decoder
        if gpus:
            variables.update(_visible(gpus))
        python = venvs.python(environment, "cuda" if gpus else "cpu")
        return Command([str(python), *arguments], variables, folder)


def _visible(gpus: tp.Sequence[str]) -> dict[str, str]:
    """Return what hides all other GPUs; without any, all of them. They are numbered as nvidia-smi does."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _path(environment: Environment) -> str:
    """Return where Python finds the worker and the environment's modules."""
    return os.pathsep.join([str(IMAGES), str(environment.folder)])
