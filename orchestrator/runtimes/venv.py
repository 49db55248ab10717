"""Virtual environments on this host: no daemon, no root."""

import os
import pathlib
import typing as tp

from orchestrator import builder, environments, ffmpeg
from orchestrator.environments import IMAGES, Environment
from orchestrator.runtimes.base import THREADS, Command, Mounts, Resources, Runtime
from orchestrator.weights import Weights
from worker.protocol import Shard


class VenvRuntime(Runtime):
    """Starts `<environment>/bin/python -m worker` with a scrubbed environment and an empty folder."""

    name = "venv"

    def __init__(self, log: pathlib.Path | None = None) -> None:
        self.log = log

    def prepare(self, environment: Environment, variant: str, say: tp.Callable[[str], None]) -> None:
        log = self.log / f"build-{environment.name}.log" if self.log else None
        builder.build(environment, variant, say, log)

    def cancel(self) -> None:
        builder.cancel()

    def ready(self, environment: Environment, variant: str) -> bool:
        return builder.built(environment, variant)

    def command(
        self,
        shard: Shard,
        variant: str,
        mounts: Mounts,
        file: pathlib.Path,
        events: pathlib.Path,
        resources: Resources,
    ) -> Command:
        environment = environments.find(shard.environment)
        env = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        env.update(THREADS)
        env.update(environment.spec.variables)
        env.update(
            HOME=mounts.scratch,
            PYTHONPATH=_path(environment),
            PYTHONNOUSERSITE="1",
            PYTHONUNBUFFERED="1",  # what is printed before a crash must reach the log
            PYTHONDONTWRITEBYTECODE="1",
            CONSORT_AUDIO=mounts.audio,
            CONSORT_OUTPUT=mounts.output,
            CONSORT_WEIGHTS=mounts.weights,
            CONSORT_SCRATCH=mounts.scratch,
            CONSORT_FFMPEG=mounts.ffmpeg,
            CONSORT_EVENTS=str(events),
            CONSORT_MODULES=" ".join(environment.spec.modules),
            CONSORT_GPUS=",".join(resources.gpus),
            CUDA_VISIBLE_DEVICES=",".join(resources.gpus),  # empty: none
            CUDA_DEVICE_ORDER="PCI_BUS_ID",  # as nvidia-smi counts them
        )
        python = builder.python(environment, variant)
        return Command([str(python), "-m", "worker", str(file)], env, mounts.scratch)


def variables_for_users(environment: Environment) -> dict[str, str]:
    """Return what a person's own script needs to import the worker and the environment's modules."""
    weights = Weights()
    variables = {**os.environ, **environment.spec.variables, "PYTHONPATH": _path(environment)}
    variables["CONSORT_WEIGHTS"] = str(weights.root)
    decoder = weights.path(ffmpeg.checkpoint())
    return {**variables, "CONSORT_FFMPEG": str(decoder)} if decoder.is_file() else variables


def _path(environment: Environment) -> str:
    return os.pathsep.join([str(IMAGES), str(environment.folder)])
