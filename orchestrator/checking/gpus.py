"""Let each environment compute something on each GPU that its wheels serve, or say why it would not."""

import subprocess
import tempfile
import typing as tp

from orchestrator.environments import devices
from orchestrator.environments.definitions import Environment
from orchestrator.environments.devices import Gpu
from orchestrator.errors import ConsortError
from orchestrator.running import placement
from orchestrator.running.runtimes.base import READY, Runtime

_PROBE = """
import sys
from worker.errors import DeviceMissing
from worker.work import devices
try:
    print(devices.look("cuda", [sys.argv[1]]).name)
    devices.probe(sys.argv[2])
except DeviceMissing as error:
    sys.exit(str(error))
"""


def describe(gpu: Gpu) -> str:
    """Return what a GPU is called and what its driver says of it."""
    known = (gpu.driver and f"driver {gpu.driver}", gpu.capability and f"sm_{gpu.capability.replace('.', '')}")
    return ", ".join(filter(None, (f"{gpu.index} = {gpu.name} ({gpu.uuid})", *known)))


def examine(environment: Environment, gpus: tp.Sequence[Gpu]) -> tp.Iterator[tuple[bool, str]]:
    """Yield for each GPU whether anything is to be mended, and what was found.

    Args:
        environment: says what its wheels need; one that says nothing has nothing to be tried.
        gpus: of this machine.
    """
    needs = environment.spec.cuda
    if needs is None:
        return
    if not gpus:
        yield True, f"none is here; it would need {needs.needs}"
    runtime = placement.ready(environment, variant="cuda")
    for gpu in gpus:
        name = f"{gpu.index} = {gpu.name}"
        if why := devices.unfit(gpu, environment):
            yield not devices.too_old(gpu, environment), f"{name}: {why}; {devices.mend(environment)}"
        elif runtime.state(environment, "cuda") != READY:
            build = f"`consort envs build {environment.name} --variant cuda`"
            yield True, f"{name}: has what is needed ({needs.needs}); not tried, as nothing is built for it: {build}"
        elif why := _try(environment, needs.module, gpu, runtime):
            yield False, f"{name}: {why}; {devices.mend(environment)}"
        else:
            yield True, f"{name}: computes"


def _try(environment: Environment, module: str, gpu: Gpu, runtime: Runtime) -> str | None:
    """Return why an environment cannot compute on a GPU, or None."""
    while True:
        try:
            with tempfile.TemporaryDirectory(prefix="consort-doctor-") as folder:
                command = runtime.script(environment, ["-c", _PROBE, gpu.uuid, module], folder, (gpu.uuid,))
                said = subprocess.run(
                    command.argv, capture_output=True, text=True, env=command.env, stdin=subprocess.DEVNULL
                )
        except (ConsortError, OSError) as error:
            return str(error)
        if not said.returncode:
            return None
        refused = [line.strip() for line in said.stderr.splitlines() if devices.problem(line)]
        if not (refused and runtime.another_way()):
            words = refused[:1] or said.stderr.strip().splitlines()[-1:]
            return words[0] if words else f"ended with code {said.returncode}"
