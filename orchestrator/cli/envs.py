"""`consort envs`: the environments of this machine, as virtual environments or as images, and images in registries."""

import argparse
import functools
import typing as tp

from orchestrator import errors
from orchestrator.cli import flags
from orchestrator.environments import definitions, devices
from orchestrator.environments.definitions import Environment
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.running import progress
from orchestrator.text import size, table

if tp.TYPE_CHECKING:
    from orchestrator.environments.images import Wanted
    from orchestrator.running.runtimes.base import Runtime


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "envs", "list, build or remove the environments; push or pull their images", run)
    verb.add_argument("action", nargs="?", choices=("list", "build", "remove", "push", "pull"), default="list")
    verb.add_argument("names", nargs="*", metavar="ENVIRONMENT", help="or a folder of your own (default: all)")
    verb.add_argument("--runtime", choices=("venv", "docker"),
                      help="docker: container images, which alone are pushed and pulled (default: venv)")  # fmt: skip
    verb.add_argument("--variant", dest="variants", action="append", choices=("cpu", "cuda"),
                      help="default: what this machine has")  # fmt: skip
    verb.add_argument("--registry", metavar="HOST[:PORT][/NAME]",
                      help="push: where to; digests are written to images/digests.lock")  # fmt: skip
    verb.add_argument("--attest", action="store_true",
                      help="build images with attestations: their packages, and how they were built")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.running.runtimes import RUNTIMES

    chosen = [definitions.at(name) for name in arguments.names or definitions.names()]
    moves = arguments.action in ("push", "pull")
    _check(arguments, moves)
    runtime = RUNTIMES[arguments.runtime or ("docker" if moves else "venv")].open()
    if arguments.action == "list":
        print(table(_rows(chosen, runtime)))
        return errors.OK
    if arguments.action == "remove":
        for gone in [place for environment in chosen for place in runtime.remove(environment)]:
            print(f"removed {gone}")
        return errors.OK
    variants = arguments.variants or _variants_of_this_machine(runtime)
    if moves:
        from orchestrator.environments import images

        wanted = [images.wanted(one, variant) for one in chosen for variant in _known(one, variants)]
        return _move([*wanted, *([] if arguments.names else [images.wanted_host()])], arguments.registry)
    if arguments.attest:
        runtime.attest()
    with progress.choose() as shown:
        good = _build(chosen, runtime, variants, shown) if arguments.names else build_all(runtime, variants, shown)
    return errors.OK if good else errors.UNAVAILABLE


def build_all(runtime: "Runtime", variants: list[str], shown: progress.Progress) -> bool:
    """Build what is missing of all environments, and what the runtime needs beside; return whether all is there."""
    good = _build([definitions.find(name) for name in definitions.names()], runtime, variants, shown)
    return _build_beside(runtime, shown) and good


def _check(arguments: argparse.Namespace, moves: bool) -> None:
    if moves and arguments.runtime == "venv":
        raise JobError(f"envs {arguments.action}: images alone; a virtual environment is built where it is used")
    if (arguments.action == "push") != (arguments.registry is not None):
        raise JobError("--registry HOST[:PORT][/NAME] says where `envs push` pushes to, and goes with nothing else")
    if arguments.attest and arguments.action != "build":
        raise JobError(f"envs {arguments.action}: --attest goes with `envs build --runtime docker`")
    if arguments.registry is not None:
        from orchestrator.environments import registry

        registry.check(arguments.registry)


def _move(wanted: "list[Wanted]", place: str | None) -> int:
    """Push images, or pull those that are not there; return the exit code."""
    from orchestrator.environments import registry

    good = True
    with progress.choose() as shown:
        for one in wanted:
            name = f"{one.name}:{one.variant}"
            say = functools.partial(shown.stage, name)
            try:
                shown.say(f"{name}: {registry.push(one, place, say) if place else _pull(one, say)}")
            except EnvironmentUnavailable as error:
                shown.say(str(error) if place else f"{error}; `make images` builds it")
                good = False
    return errors.OK if good else errors.UNAVAILABLE


def _pull(wanted: "Wanted", say: tp.Callable[[str], None]) -> str:
    from orchestrator.environments import images, registry

    if images.is_there(wanted):
        return "ready"
    registry.pull(wanted, say)
    return "ready, pulled"


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
    runtime.warn, good = shown.say, True
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
        for name in runtime.build_beside(lambda text: shown.stage("orchestrator", text)):
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
