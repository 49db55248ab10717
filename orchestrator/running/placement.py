"""Where the workers of a job run: in which runtime, on which device, and why."""

import contextlib
import dataclasses
import functools
import itertools
import typing as tp

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

# Why GPUs are of no use, by UUID: to an environment as ("tf-cuda", ""), to a model as ("tf-cuda", "crepe").
Refused = dict[tuple[str, str], dict[str, str]]


@dataclasses.dataclass
class Placement:
    """The runtime and the devices of one run.

    A GPU may be of use to one environment and of none to another, or to all models of an environment but one: what
    is left without any goes on with the CPU, and says so.
    """

    runtime: Runtime
    why: str  # this runtime
    grant: Grant
    gpu_environments: frozenset[str]  # those with models that use a GPU
    refused: Refused = dataclasses.field(default_factory=dict)

    def gpus(self, environment: str, model: str = "") -> list[str]:
        """Return the UUIDs of those that may serve an environment, or a model that cannot have every one of these."""
        if environment not in self.gpu_environments:
            return []
        known = {**self.refused.get((environment, ""), {}), **self.refused.get((environment, model), {})}
        return [gpu.uuid for gpu in self.grant.gpus if gpu.uuid not in known]

    def device(self, environment: str, model: str = "") -> str:
        """Return cpu or cuda."""
        return "cuda" if self.gpus(environment, model) else "cpu"

    def flags(self, environment: str, model: str = "") -> list[str]:
        """Return what every record must say that would have been made on a GPU."""
        meant = self.grant.gpus and environment in self.gpu_environments
        return ["cpu_fallback"] if meant and not self.gpus(environment, model) else []

    def refuse(self, gpu: str, why: str, environment: str, model: str = "") -> bool:
        """Let a GPU serve an environment, or a model of it, no more; return whether any is left for that."""
        self.refused.setdefault((environment, model), {})[gpu] = why
        return bool(self.gpus(environment, model))

    def alone(self, environment: str, models: tp.Iterable[str]) -> list[str]:
        """Return those of some models that cannot have every GPU of their environment."""
        return [model for model in models if (environment, model) in self.refused]

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
        if not self.grant.gpus:
            return f"cpu ({self.grant.reason})"
        if not self.gpu_environments:
            return "cpu (no model of this job uses a GPU)"
        used = {gpu for environment in self.gpu_environments for gpu in self.gpus(environment)}
        without = [key for key in self.refused if not self.gpus(*key)]
        reasons = {key: list(self.refused[key].values())[-1] for key in without}
        if not used:
            return f"cpu ({'; '.join(dict.fromkeys(reasons.values()))})"
        names = [gpu.name for gpu in self.grant.gpus if gpu.uuid in used]
        on = ", ".join(f"{n} x {names.count(n)}" if names.count(n) > 1 else n for n in dict.fromkeys(names))
        return "; ".join([f"cuda {on}", *(f"{m or e} on the CPU ({why})" for (e, m), why in reasons.items())])


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
    settle = functools.partial(_settle, grant=grant, able=able, refused=_unfit(grant, able))
    if job.runtime != "auto":
        return settle(RUNTIMES[job.runtime].open(), asked=True)
    first = _first(settle, used)
    before = RUNTIMES.get(OutputDir(job.output).made_with() or first.runtime.name)
    if before is None or before.name == first.runtime.name:
        return first
    try:
        stays = settle(before.open(), asked=False)
    except EnvironmentUnavailable as error:
        first.why += f"; the output folder was made with {before.name}, but {str(error).partition(';')[0]}"
        return first
    stays.why = f"auto: the output folder was made with it; `--runtime {first.runtime.name}` would serve as well"
    return stays


def _first(settle: tp.Callable[..., Placement], used: list[Environment]) -> Placement:
    """Return the placement in the first runtime that is at hand.

    Raises:
        EnvironmentUnavailable: none is, or the job insists on GPUs.
    """
    reasons: list[str] = []
    for runtime in RUNTIMES.values():
        try:
            placement = settle(runtime.open(), asked=False)
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


def ready(environment: Environment, buildable: bool = False, variant: str = "cpu") -> Runtime:
    """Return the runtime that has an environment at hand: virtual environments, which see more, before containers.

    It is meant in one variant; where `buildable`, one that could be built as a virtual environment is at hand as well.
    """
    venv = VenvRuntime.open()
    if venv.state(environment, variant) == READY:
        return venv
    with contextlib.suppress(EnvironmentUnavailable):
        if buildable and interpreters.find(environment.spec.python):
            return venv
    with contextlib.suppress(EnvironmentUnavailable):
        docker = DockerRuntime.open()
        return docker if docker.state(environment, variant) == READY else venv
    return venv


def _settle(runtime: Runtime, grant: Grant, able: frozenset[str], refused: Refused, asked: bool) -> Placement:
    """Return the placement in one runtime, without GPUs where it cannot give any.

    Raises:
        EnvironmentUnavailable: the job insists on GPUs, or another runtime may have them.
    """
    why = "asked for" if asked else ""
    lack = runtime.without_gpus() if grant.gpus else None
    placement = Placement(runtime, why, grant, able, refused)
    if lack is None:
        return placement
    if grant.strict:
        raise EnvironmentUnavailable(f"devices: {lack}; use Docker, `runtime: venv`, or `devices: cpu`")
    if not asked:
        raise EnvironmentUnavailable(f"{lack}, which virtual environments can have")
    for gpu, environment in itertools.product(grant.gpus, sorted(able)):
        placement.refuse(gpu.uuid, lack, environment)
    return placement


def _unfit(grant: Grant, able: tp.Iterable[str]) -> Refused:
    """Return the GPUs that the wheels of environments do not serve.

    Raises:
        EnvironmentUnavailable: the job insists on one, and there is no other.
    """
    refused: Refused = {}
    for environment in map(definitions.find, sorted(able)):
        unfit = {gpu.uuid: f"GPU {gpu.uuid}: {why}" for gpu in grant.gpus if (why := devices.unfit(gpu, environment))}
        if unfit:
            refused[environment.name, ""] = unfit
        if grant.strict and len(unfit) == len(grant.gpus):
            raise EnvironmentUnavailable(f"devices: {'; '.join(unfit.values())}; {devices.mend(environment)}")
    return refused
