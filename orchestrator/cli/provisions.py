"""The environments of this machine in both of their forms: listed, built and removed by `consort envs`."""

import typing as tp

from orchestrator.environments import devices, images, venvs
from orchestrator.environments.definitions import Environment
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.running.progress import Progress
from orchestrator.text import size


def rows(chosen: tp.Sequence[Environment], runtime: str) -> list[tuple[str, ...]]:
    """Return a table: each environment with its state; images in every variant, with their sizes."""
    if runtime == "docker":
        found = [
            (one.name, one.spec.python, images.state(one, variant), _size_of(one, variant), images.tag(one, variant))
            for one in chosen
            for variant in one.spec.locks
        ]
        return [("environment", "python", "state", "size", "image"), *found]
    found_here = [
        (one.name, one.spec.python, "built" if venvs.built(one, variant) else "not built", str(folder))
        for one in chosen
        for variant in one.spec.locks
        if (folder := venvs.folder(one, variant)).exists() or variant == "cpu"
    ]
    return [("environment", "python", "state", "folder"), *found_here]


def build(chosen: tp.Sequence[Environment], runtime: str, variants: tp.Sequence[str], shown: Progress) -> list[str]:
    """Build what is missing, one after the other; return what went wrong, which is shown as well."""
    problems = []
    for one, variant in [(environment, known) for environment in chosen for known in _known(environment, variants)]:
        name = images.tag(one, variant) if runtime == "docker" else one.name

        def say(text: str, name: str = name) -> None:
            shown.stage(name, text)

        try:
            if runtime == "docker":
                images.build(one, variant, say)
            else:
                venvs.build(one, variant, say)
            shown.say(f"{name}: ready{', ' + _size_of(one, variant) if runtime == 'docker' else ''}")
        except EnvironmentUnavailable as error:
            problems.append(str(error))
            shown.say(str(error))
    return problems


def build_host(shown: Progress) -> list[str]:
    """Build the image of the host side, for docker-compose.yml; return what went wrong."""
    try:
        images.build_host(lambda text: shown.stage(images.HOST_TAG, text))
        shown.say(f"{images.HOST_TAG}: ready")
    except EnvironmentUnavailable as error:
        shown.say(str(error))
        return [str(error)]
    return []


def remove(chosen: tp.Sequence[Environment], runtime: str) -> list[str]:
    """Remove environments in every variant; return what was removed."""
    if runtime == "docker":
        return [tag for one in chosen for tag in images.remove(one)]
    return [str(path) for one in chosen for path in venvs.remove(one)]


def variants_of_this_machine(runtime: str) -> list[str]:
    """Return what jobs here may ask for: cuda where there is a GPU; an image for the CPU is always needed as well."""
    gpu = bool(devices.discover().gpus)
    return ["cpu"] * (runtime == "docker" or not gpu) + ["cuda"] * gpu


def _known(environment: Environment, variants: tp.Sequence[str]) -> list[str]:
    """Return the variants that an environment has; the CPU's where it has none of them."""
    return [variant for variant in dict.fromkeys(variants) if variant in environment.spec.locks] or ["cpu"]


def _size_of(environment: Environment, variant: str) -> str:
    found = images.size(environment, variant)
    return "-" if found is None else size(found)
