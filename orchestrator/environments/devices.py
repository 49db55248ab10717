"""The GPUs of this machine, and which of them a job is granted.

GPUs are named by their UUIDs from here on: numbers change with every reboot, and inside a container
they begin with 0 again.
"""

import csv
import dataclasses
import os
import shutil
import subprocess
import typing as tp

from orchestrator.environments.definitions import Environment
from orchestrator.errors import EnvironmentUnavailable

_FIELDS = ("index", "uuid", "name", "memory.total", "driver_version", "compute_cap")
_OLD_FIELDS = _FIELDS[:-1]  # of an nvidia-smi that knows of no compute_cap
_WSL = "/usr/lib/wsl/lib/nvidia-smi"  # where Windows keeps it for its Linux
_PART = "MIG-"  # how the name of a part of a GPU begins
_TIMEOUT = 20.0  # seconds; a driver that wakes up takes some
MEND = "install NVIDIA's driver (for containers also its nvidia-container-toolkit), or use `devices: auto` or `cpu`"
# What Docker says where it cannot give a GPU: no toolkit, a broken driver, no specification for CDI.
_ENGINE_SAYS = (
    "could not select device driver",
    "nvidia-container-cli",
    "nvidia.com/gpu",
    "nvidia-ctk",
    "CDI device",
    "GPU vendor from CDI",
    "known GPU vendor",
)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU: `memory` is in MiB, `driver` such as 580.65.06, `capability` such as 9.0; "" is not known."""

    index: int
    uuid: str
    name: str
    memory: int
    driver: str = ""
    capability: str = ""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a machine has, and why there is nothing where there is nothing."""

    gpus: tuple[Gpu, ...]
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Grant:
    """What a job gets. Without GPUs it computes on the CPU."""

    gpus: tuple[Gpu, ...]
    reason: str  # for people
    strict: bool = False  # GPUs were asked for: nothing else will do


def discover(environ: tp.Mapping[str, str] = os.environ) -> Found:
    """Return the GPUs that nvidia-smi lists, less those that CUDA_VISIBLE_DEVICES hides."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH", "")) or (_WSL if os.path.exists(_WSL) else None)
    if program is None:
        return Found((), "no NVIDIA driver (nvidia-smi is not there)")
    try:
        done = _ask(program, _FIELDS)
        if "not a valid field" in done.stdout + done.stderr:
            done = _ask(program, _OLD_FIELDS)
    except (OSError, subprocess.SubprocessError) as error:
        return Found((), f"nvidia-smi does not answer ({type(error).__name__})")
    gpus = [gpu for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if (gpu := _gpu(row))]
    if not gpus:  # a warning about one of them may come with the others
        words = (done.stdout + done.stderr).split("\n")[0].strip() or f"exit code {done.returncode}"
        return Found((), f"nvidia-smi lists no GPU: {words}")
    visible = _visible(gpus, environ.get("CUDA_VISIBLE_DEVICES"))
    return Found(tuple(visible), "" if visible else "CUDA_VISIBLE_DEVICES hides every GPU")


def grant(asked: str | tp.Sequence[tp.Any], find: tp.Callable[[], Found] = discover) -> Grant:
    """Return the GPUs for what a job says under `devices`.

    Args:
        asked: auto, cpu, cuda, cuda:N, or a list of indexes and UUIDs.
        find: looks for GPUs; not called for cpu.

    Raises:
        EnvironmentUnavailable: a GPU was asked for that is not there. One line that says what to do.
    """
    if asked == "cpu":
        return Grant((), "asked for")
    found = find()
    if asked == "auto":
        return Grant(found.gpus, "auto" if found.gpus else f"auto: {found.reason}")
    if not found.gpus:
        raise EnvironmentUnavailable(f"devices: {_words(asked)}: {found.reason}; {MEND}")
    if asked == "cuda":
        return Grant(found.gpus, "asked for", strict=True)
    wanted = [asked.partition(":")[2]] if isinstance(asked, str) else list(asked)
    chosen = dict.fromkeys(_choose(one, found.gpus) for one in wanted)  # once each, however it is called
    return Grant(tuple(chosen), "asked for", strict=True)


def unfit(gpu: Gpu, environment: Environment) -> str | None:
    """Return why the wheels of an environment cannot use a GPU, as far as its driver tells, or None."""
    needs = environment.spec.cuda
    if needs is None:
        return None
    if too_old(gpu, environment):
        return f"driver {gpu.driver} is too old: {environment.name} needs {needs.driver} or newer"
    number = gpu.capability.replace(".", "")
    if number.isdigit() and not needs.sm[0] <= int(number) < needs.sm[1] // 10 * 10 + 10:
        return f"{gpu.name} is sm_{number}: {environment.name} serves sm_{needs.sm[0]} to sm_{needs.sm[1]}"
    return None


def too_old(gpu: Gpu, environment: Environment) -> bool:
    """Return whether another driver is what an environment would need."""
    version, needs = gpu.driver.partition(".")[0], environment.spec.cuda
    return needs is not None and version.isdigit() and int(version) < needs.driver


def mend(environment: Environment) -> str:
    """Return what to do where an environment cannot use a GPU."""
    needs = environment.spec.cuda
    return f"{MEND}; {environment.name} needs {needs.needs}" if needs else MEND


def problem(words: str | None) -> str | None:
    """Return what an engine said when it could not start a container, if that was about its GPUs."""
    return words if words and any(pattern in words for pattern in _ENGINE_SAYS) else None


def _choose(wanted: tp.Any, gpus: tp.Sequence[Gpu]) -> Gpu:
    name = str(wanted).removeprefix("cuda:")
    for gpu in gpus:
        if name in (str(gpu.index), gpu.uuid):
            return gpu
    if name.startswith(_PART):  # a part of a GPU, which the worker will look for itself
        return Gpu(-1, name, "MIG", 0, gpus[0].driver)
    known = ", ".join(f"{gpu.index} = {gpu.uuid} ({gpu.name})" for gpu in gpus)
    raise EnvironmentUnavailable(f"devices: no GPU {name} here; there is {known}")


def _ask(program: str, fields: tp.Sequence[str]) -> "subprocess.CompletedProcess[str]":
    query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    return subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)


def _gpu(row: list[str]) -> Gpu | None:
    try:
        index, uuid, name, memory, *more = (cell.strip() for cell in row)
        return Gpu(int(index), uuid, name, int(memory) if memory.isdigit() else 0, *more[:2])
    except ValueError:
        return None  # a warning among the lines


def _visible(gpus: list[Gpu], variable: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA would show; a scheduler grants them to its jobs in this way."""
    if variable is None:
        return gpus
    chosen: list[Gpu] = []
    for name in filter(None, (part.strip() for part in variable.split(","))):
        match = [gpu for gpu in gpus if name == str(gpu.index) or gpu.uuid.startswith(name)]
        if name.startswith(_PART):
            match = [Gpu(-1, name, "MIG", 0, gpus[0].driver)]
        if len(match) != 1:
            break  # as CUDA does: what stands behind a wrong one is hidden
        chosen += match
    return chosen


def _words(asked: str | tp.Sequence[tp.Any]) -> str:
    return asked if isinstance(asked, str) else ", ".join(map(str, asked))
