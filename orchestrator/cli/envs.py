"""`consort envs`: the environments of this machine, as virtual environments or as images."""

import argparse
import functools
import typing as tp

from orchestrator import errors
from orchestrator.cli import flags
from orchestrator.environments import definitions, devices
from orchestrator.environments.definitions import Environment
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.running import progress
from orchestrator.text import size, table

if tp.TYPE_CHECKING:
    from orchestrator.running.runtimes.base import Runtime


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "envs", "list, build or remove the environments", run)
    verb.add_argument("action", nargs="?", choices=("list", "build", "remove"), default="list")
    verb.add_argument("names", nargs="*", metavar="ENVIRONMENT", help="or a folder of your own (default: all)")
    verb.add_argument("--runtime", choices=("venv", "docker"), default="venv", help="docker: container images")
    verb.add_argument("--variant", dest="variants", action="append", choices=("cpu", "cuda"),
                      help="default: what this machine has")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.running.runtimes import RUNTIMES

    chosen = [definitions.at(name) for name in arguments.names or definitions.names()]
    runtime = RUNTIMES[arguments.runtime].open()
    if arguments.action == "list":
        print(table(_rows(chosen, runtime)))
        return errors.OK
    if arguments.action == "remove":
        for gone in [place for environment in chosen for place in runtime.remove(environment)]:
            print(f"removed {gone}")
        return errors.OK
    variants = arguments.variants or _variants_of_this_machine(runtime)
    with progress.choose() as shown:
        good = _build(chosen, runtime, variants, shown) if arguments.names else build_all(runtime, variants, shown)
    return errors.OK if good else errors.UNAVAILABLE


def build_all(runtime: "Runtime", variants: list[str], shown: progress.Progress) -> bool:
    """Build what is missing of all environments, and what the runtime needs beside; return whether all is there."""
    good = _build([definitions.find(name) for name in definitions.names()], runtime, variants, shown)
    return _build_beside(runtime, shown) and good


def _rows(chosen: tp.Sequence[Environment], runtime: "Runtime") -> list[tuple[str, ...]]:
    """Return a table: each environment in every variant, with its state, size and place."""
    from orchestrator.running.runtimes.base import MISSING

    rows: list[tuple[str, ...]] = [("environment", "python", "state", "size", "place")]
    for one, variant in [(environment, variant) for environment in chosen for variant in environment.spec.locks]:
        state, place = runtime.state(one, variant), runtime.place(one, variant)
        if runtime.every_variant or variant == "cpu" or state != MISSING:
            rows.append((one.name, one.spec.python, state, _size_of(one, variant, runtime), place))
    return rows


def _build(chosen: list[Environment], runtime: "Runtime", variants: list[str], shown: progress.Progress) -> bool:
    """Build what is missing, one after the other; return whether all is there."""
    good = True
    for one, variant in [(environment, known) for environment in chosen for known in _known(environment, variants)]:
        name = f"{one.name}:{variant}"
        try:
            runtime.build(one, variant, functools.partial(shown.stage, name))
            shown.say(f"{name}: ready, {_size_of(one, variant, runtime)}")
        except EnvironmentUnavailable as error:
            shown.say(str(error))
            good = False
    return good


def _build_beside(runtime: "Runtime", shown: progress.Progress) -> bool:
    """Build what a runtime needs beside environments; return whether that is there."""
    try:
        for name in runtime.build_beside(lambda text: shown.stage("beside", text)):
            shown.say(f"{name}: ready")
    except EnvironmentUnavailable as error:
        shown.say(str(error))
        return False
    return True


def _variants_of_this_machine(runtime: "Runtime") -> list[str]:
    """Return what jobs here may ask for: cuda where there is a GPU, and what else the runtime keeps."""
    gpu = bool(devices.discover().gpus)
    return ["cpu"] * (runtime.every_variant or not gpu) + ["cuda"] * gpu


def _known(environment: Environment, variants: tp.Sequence[str]) -> list[str]:
    """Return the variants that an environment has; the CPU's where it has none of them."""
    return [variant for variant in dict.fromkeys(variants) if variant in environment.spec.locks] or ["cpu"]


def _size_of(environment: Environment, variant: str, runtime: "Runtime") -> str:
    found = runtime.size(environment, variant)
    return "-" if found is None else size(found)
