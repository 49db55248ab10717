"""The environments of this machine in each of their forms: listed, built and removed by `consort envs`."""

import typing as tp

from orchestrator.environments import devices
from orchestrator.environments.definitions import Environment
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.running.progress import Progress
from orchestrator.running.runtimes.base import MISSING, Runtime
from orchestrator.text import size


def rows(chosen: tp.Sequence[Environment], runtime: Runtime) -> list[tuple[str, ...]]:
    """Return a table: each environment in every variant, with its state, size and place."""
    found = [
        (one.name, one.spec.python, runtime.state(one, variant), _size_of(one, variant, runtime))
        + (runtime.place(one, variant),)
        for one in chosen
        for variant in one.spec.locks
        if runtime.every_variant or variant == "cpu" or runtime.state(one, variant) != MISSING
    ]
    return [("environment", "python", "state", "size", "place"), *found]


def build(chosen: tp.Sequence[Environment], runtime: Runtime, variants: tp.Sequence[str], shown: Progress) -> list[str]:
    """Build what is missing, one after the other; return what went wrong, which is shown as well."""
    problems = []
    for one, variant in [(environment, known) for environment in chosen for known in _known(environment, variants)]:
        name = f"{one.name}:{variant}"

        def say(text: str, name: str = name) -> None:
            shown.stage(name, text)

        try:
            runtime.build(one, variant, say)
            shown.say(f"{name}: ready, {_size_of(one, variant, runtime)}")
        except EnvironmentUnavailable as error:
            problems.append(str(error))
            shown.say(str(error))
    return problems


def build_beside(runtime: Runtime, shown: Progress) -> list[str]:
    """Build what a runtime needs beside environments; return what went wrong."""
    try:
        for name in runtime.build_beside(lambda text: shown.stage("beside", text)):
            shown.say(f"{name}: ready")
    except EnvironmentUnavailable as error:
        shown.say(str(error))
        return [str(error)]
    return []


def variants_of_this_machine(runtime: Runtime) -> list[str]:
    """Return what jobs here may ask for: cuda where there is a GPU, and what else the runtime keeps."""
    gpu = bool(devices.discover().gpus)
    return ["cpu"] * (runtime.every_variant or not gpu) + ["cuda"] * gpu


def _known(environment: Environment, variants: tp.Sequence[str]) -> list[str]:
    """Return the variants that an environment has; the CPU's where it has none of them."""
    return [variant for variant in dict.fromkeys(variants) if variant in environment.spec.locks] or ["cpu"]


def _size_of(environment: Environment, variant: str, runtime: Runtime) -> str:
    found = runtime.size(environment, variant)
    return "-" if found is None else size(found)
