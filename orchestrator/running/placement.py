"""Where the workers of a job run: in which runtime, on which device, and why."""

import contextlib
import dataclasses

from orchestrator.environments import definitions, devices, interpreters
from orchestrator.environments.definitions import Environment
from orchestrator.environments.devices import Grant
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.job.spec import JobSpec
from orchestrator.output.folder import OutputDir
from orchestrator.running.engines import ENGINES
from orchestrator.running.runtimes import RUNTIMES
from orchestrator.running.runtimes.base import READY, Runtime
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
        for name, other in RUNTIMES.items():
            if name != self.runtime.name:
                with contextlib.suppress(EnvironmentUnavailable):
                    other.open().sweep(output)

    @property
    def devices(self) -> str:
        """The devices in words: `cpu (auto: no NVIDIA driver)`, `cuda NVIDIA H200 x 2`."""
        names = [gpu.name for gpu in self.grant.gpus]
        if self.lost or not names:
            return f"cpu ({self.lost or self.grant.reason})"
        if not self.gpu_environments:
            return "cpu (no model of this job uses a GPU)"
        return "cuda " + ", ".join(f"{n} x {names.count(n)}" if names.count(n) > 1 else n for n in dict.fromkeys(names))


def check(job: JobSpec, source: str = "") -> None:
    """Refuse a runtime or engine that no registry has.

    Args:
        job: read.
        source: where it stands, for the message.

    Raises:
        JobError: what is known.
    """
    for key, value, known in (("runtime", job.runtime, ("auto", *RUNTIMES)), ("engine", job.engine, tuple(ENGINES))):
        if value not in known:
            where = f"{source}: " if source else ""
            raise JobError(f"{where}{key}: {value!r} is not one of {', '.join(known)}")


def choose(job: JobSpec, fits: bool = False) -> Placement:
    """Return where the workers of a job run.

    Args:
        job: what the user asked for.
        fits: its models learn, which all of them do on a GPU where there is one.

    Raises:
        JobError: a model's environment is not known.
        EnvironmentUnavailable: a runtime or GPU that the job insists on is not there.
    """
    check(job)
    definitions.add(job.environments)
    extractors = [model.built for model in job.models]
    used = [definitions.find(name) for name in sorted({extractor.environment for extractor in extractors})]
    gpu = {e.environment for e in extractors if fits or e.uses_gpu()}
    able = frozenset(one.name for one in used if one.name in gpu and one.spec.gpu != "none")
    grant = devices.grant(job.devices)
    if job.runtime != "auto":
        return _settle(RUNTIMES[job.runtime].open(), grant, able, asked=True)
    first = _first(grant, able, used)
    before = RUNTIMES.get(OutputDir(job.output).made_with() or first.runtime.name)
    if before is None or before.name == first.runtime.name:
        return first
    try:
        stays = _settle(before.open(), grant, able, asked=False)
    except EnvironmentUnavailable as error:
        first.why += f"; the output folder was made with {before.name}, but {str(error).partition(';')[0]}"
        return first
    stays.why = f"auto: the output folder was made with it; `--runtime {first.runtime.name}` would serve as well"
    return stays


def _first(grant: Grant, able: frozenset[str], used: list[Environment]) -> Placement:
    """Return the placement in the first runtime that is at hand.

    Raises:
        EnvironmentUnavailable: none is, or the job insists on GPUs.
    """
    reasons: list[str] = []
    for runtime in RUNTIMES.values():
        try:
            placement = _settle(runtime.open(), grant, able, asked=False)
            why = placement.runtime.hesitates([(one, placement.device(one.name)) for one in used])
        except EnvironmentUnavailable as error:
            reasons.append(str(error).partition(";")[0])
            continue
        if why is None:
            said = f"{placement.runtime.title} answers and the images are there"
            placement.why = f"auto: {reasons[0] if reasons else said}"
            return placement
        reasons.append(why)
    raise EnvironmentUnavailable(f"runtime: none can be had here: {'; '.join(reasons)}")


def ready(environment: Environment, buildable: bool = False) -> Runtime:
    """Return the runtime that has an environment at hand: virtual environments, which see more, before containers.

    It is meant in its variant for the CPU; where `buildable`, one that could be built as a virtual environment is
    at hand as well.
    """
    venv = VenvRuntime.open()
    if venv.state(environment, "cpu") == READY:
        return venv
    with contextlib.suppress(EnvironmentUnavailable):
        if buildable and interpreters.find(environment.spec.python):
            return venv
    with contextlib.suppress(EnvironmentUnavailable):
        docker = DockerRuntime.open()
        return docker if docker.state(environment, "cpu") == READY else venv
    return venv


def _settle(runtime: Runtime, grant: Grant, able: frozenset[str], asked: bool) -> Placement:
    """Return the placement in one runtime, without GPUs where it cannot give any.

    Raises:
        EnvironmentUnavailable: the job insists on GPUs, or another runtime may have them.
    """
    why = "asked for" if asked else ""
    lack = runtime.without_gpus() if grant.gpus else None
    if lack is None:
        return Placement(runtime, why, grant, able)
    if grant.strict:
        raise EnvironmentUnavailable(f"devices: {lack}; use Docker, `runtime: venv`, or `devices: cpu`")
    if not asked:
        raise EnvironmentUnavailable(f"{lack}, which virtual environments can have")
    return Placement(runtime, why, Grant((), f"auto: {lack}"), able, lack)
