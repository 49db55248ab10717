"""Where the workers of a job run: in which runtime, on which device, and why."""

import contextlib
import dataclasses
import shutil
import typing as tp

from orchestrator.environments import definitions, devices, docker_client, images
from orchestrator.environments.definitions import Environment
from orchestrator.environments.devices import Grant
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.job.spec import JobSpec
from orchestrator.output.folder import OutputDir
from orchestrator.running.runtimes import docker
from orchestrator.running.runtimes.base import Runtime
from orchestrator.running.runtimes.docker import DockerRuntime
from orchestrator.running.runtimes.venv import VenvRuntime


@dataclasses.dataclass
class Placement:
    """The runtime and the devices of one run. A run that loses its GPUs goes on without them, and says so."""

    runtime: Runtime
    why: str  # this runtime
    grant: Grant
    gpu_environments: frozenset[str]  # those with models that use a GPU
    lost: str | None = None  # why the GPUs were given up

    def device(self, environment: str) -> str:
        """Return cpu or cuda."""
        return "cuda" if self.grant.gpus and environment in self.gpu_environments else "cpu"

    def variant(self, environment: Environment) -> str:
        """Return which lock of an environment is used: that of its device."""
        return self.device(environment.name)

    def flags(self, environment: str) -> list[str]:
        """Return what every record must say that would have been made on a GPU."""
        return ["cpu_fallback"] if self.lost and environment in self.gpu_environments else []

    def give_up(self, gpu: str, why: str) -> bool:
        """Take a GPU out of the grant; return whether any is left."""
        left = tuple(one for one in self.grant.gpus if one.uuid != gpu)
        self.grant = dataclasses.replace(self.grant, gpus=left)
        if not left:
            self.lost = why
        return bool(left)

    def sweep(self, output: OutputDir) -> None:
        """Remove what workers of dead runs have left, also those of another runtime than today's."""
        self.runtime.sweep(output)
        if not isinstance(self.runtime, DockerRuntime) and shutil.which("docker"):
            with contextlib.suppress(EnvironmentUnavailable):
                docker.sweep(output)

    @property
    def devices(self) -> str:
        """The devices in words: `cpu (auto: no NVIDIA driver)`, `cuda NVIDIA H200 x 2`."""
        names = [gpu.name for gpu in self.grant.gpus]
        if self.lost:
            return f"cpu ({self.lost})"
        if not names:
            return f"cpu ({self.grant.reason})"
        if not self.gpu_environments:
            return "cpu (no model of this job uses a GPU)"
        return "cuda " + ", ".join(f"{n} x {names.count(n)}" if names.count(n) > 1 else n for n in dict.fromkeys(names))


def choose(job: JobSpec) -> Placement:
    """Return where the workers of a job run.

    Raises:
        EnvironmentUnavailable: a runtime or GPU that the job insists on is not there.
    """
    extractors = [model.built for model in job.models]
    names = {extractor.environment for extractor in extractors}
    able = {e.environment for e in extractors if e.uses_gpu() and definitions.find(e.environment).spec.gpu != "none"}
    grant = devices.grant(job.devices)
    placement = Placement(VenvRuntime(), "asked for", grant, frozenset(able))
    if job.runtime != "venv":
        _place_in_containers(placement, [definitions.find(name) for name in sorted(names)], job.runtime == "docker")
    return placement


def _place_in_containers(placement: Placement, used: tp.Sequence[Environment], asked: bool) -> None:
    """Take Docker where the job asks for it, or where everything is there."""
    try:
        engine = docker_client.find()
        without_gpu = f"{engine.name} ignores requests for GPUs" if engine.podman and placement.grant.gpus else None
        if without_gpu and placement.grant.strict:
            raise EnvironmentUnavailable(f"devices: {without_gpu}; use Docker, `runtime: venv`, or `devices: cpu`")
        trial = dataclasses.replace(placement, grant=Grant((), f"auto: {without_gpu}")) if without_gpu else placement
        if without_gpu and not asked:
            raise EnvironmentUnavailable(f"{without_gpu}, which virtual environments can have")
        missing = "" if asked else _missing(trial, used)
    except EnvironmentUnavailable as error:
        if asked:
            raise
        placement.why = f"auto: {error}".partition(";")[0]
        return
    if missing:
        placement.why = f"auto: {engine.name} answers, but images are {missing}; `make images` builds them"
        return
    placement.grant = trial.grant
    placement.lost = without_gpu
    placement.runtime = DockerRuntime(engine)
    placement.why = "asked for" if asked else f"auto: {engine.name} answers and the images are there"


def _missing(placement: Placement, used: tp.Sequence[Environment]) -> str:
    """Return which images are not there, in words; empty where all are."""
    states: dict[str, list[str]] = {}
    for one in used:
        variant = placement.variant(one)
        states.setdefault(images.state(one, variant), []).append(images.tag(one, variant))
    states.pop(images.READY, None)
    return " and ".join(f"{state}: {', '.join(tags)}" for state, tags in states.items())
