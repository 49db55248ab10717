"""Build the container images of the environments, and tell whether they are those of this checkout.

An image is named by its environment and variant, and holds the hashes of its lock and of the code inside, whoever
has built it: one of other hashes than today's is built again, which takes a second where only code has changed.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
import subprocess
import typing as tp

from orchestrator import __version__, files
from orchestrator.environments import docker_client, host_side, image_inputs, processes
from orchestrator.environments.definitions import IMAGES, Environment
from orchestrator.environments.docker_client import PREFIX
from orchestrator.environments.leftovers import Leftover
from orchestrator.environments.processes import Say, redact
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights import pip_settings

READY, OUTDATED, MISSING = "ready", "of other code", "not built"
HOST_TAG = f"{PREFIX}/orchestrator:latest"
DIGESTS = "digests.lock"
SECRETS = ("pip.conf", "ca.pem")  # of a build: settings of this machine's pip, and certificates
_MADE_OF = "/opt/consort/made-of.json"  # in an image
_ROOT = IMAGES.parent
_SCANNER = ("CONSORT_SBOM_SCANNER", "docker/buildkit-syft-scanner:stable-1")  # BuildKit's own
_TOOLS = ("CONSORT_BASE_IMAGE_3_11", "python:3.11-slim-bookworm")
_STEP = re.compile(r"#\d+ \[(?:[\w-]+ )?(\d+)/(\d+)\] (\w+)")


def tag(environment: Environment, variant: str) -> str:
    """Return the name of an image: `consort/torch-cuda:cpu`."""
    return f"{PREFIX}/{environment.name}:{variant}"


@dataclasses.dataclass(frozen=True)
class Build:
    """What an image is built from, be it by `docker build` or by `docker compose build`."""

    tag: str
    dockerfile: str  # in the checkout
    arguments: dict[str, str]
    variables: dict[str, tuple[str, str]]  # arguments that a variable of the user's may say, and their defaults


def definition(environment: Environment, variant: str) -> Build:
    """Return how the image of an environment is built."""
    spec = environment.spec
    arguments = {
        "ENVIRONMENT": environment.name,
        "LOCK": spec.locks[variant],
        "VARIANT": variant,
        "EXTRA_INDEX": spec.extra_index.get(variant, ""),
        "MODULES": " ".join(spec.modules),
        "VARIABLES": "\n".join(f"{name}={value}" for name, value in spec.variables.items()),
        "VERSION": __version__,
    }
    base = (base_variable(environment), spec.base_image)
    variables = {"BASE_IMAGE": base, "TOOLS_IMAGE": _TOOLS, "REVISION": ("CONSORT_REVISION", "")}
    return Build(tag(environment, variant), "images/Dockerfile", arguments, variables)


HOST = Build(
    HOST_TAG,
    "orchestrator/Dockerfile",
    {"VERSION": __version__},
    {"BASE_IMAGE": _TOOLS, "REVISION": ("CONSORT_REVISION", "")},
)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An image as it is to be today: its name here, the hashes in it, and the file that says where it was pushed."""

    name: str
    variant: str
    tag: str
    lock: str
    worker: str
    digests: pathlib.Path


def wanted(environment: Environment, variant: str) -> Wanted:
    """Return what the image of an environment is to be; one outside the tree keeps digests beside its locks."""
    lock, folder = environment.lock_sha256(variant), environment.folder if environment.outside else IMAGES
    made = (environment.name, variant, tag(environment, variant), lock, environment.worker_sha256())
    return Wanted(*made, folder / DIGESTS)


def wanted_host() -> Wanted:
    """Return what the image of the host side is to be."""
    name, _, variant = HOST_TAG.removeprefix(f"{PREFIX}/").partition(":")
    return Wanted(name, variant, HOST_TAG, **host_side.made_of(), digests=IMAGES / DIGESTS)


def holds(image: str, made: Wanted) -> bool:
    """Return whether the image of an id is of that lock and code."""
    return _made_of(image) == {"lock": made.lock, "worker": made.worker}


def is_there(made: Wanted) -> bool:
    """Return whether an image has that name here, and is of that lock and code."""
    image = _id(made.tag)
    return image is not None and holds(image, made)


def base_variable(environment: Environment) -> str:
    """Return the variable in which a user names another base image than the official one."""
    return f"CONSORT_BASE_IMAGE_{environment.spec.python.replace('.', '_')}"


def state(environment: Environment, variant: str) -> str:
    """Return READY, OUTDATED or MISSING."""
    image = image_id(environment, variant)
    if image is None:
        return MISSING
    return READY if holds(image, wanted(environment, variant)) else OUTDATED


def current(environment: Environment, variant: str) -> bool:
    """Return whether there is an image of today's lock and code."""
    return state(environment, variant) == READY


def image_id(environment: Environment, variant: str) -> str | None:
    """Return the id of an image, `sha256:...`, or None where there is none."""
    return _id(tag(environment, variant))


def size(environment: Environment, variant: str) -> int | None:
    """Return the bytes of an image, or None where there is none."""
    image = docker_client.image(tag(environment, variant))
    return image.size if image else None


def check_attestations() -> None:
    """Look whether images can carry attestations here.

    Raises:
        EnvironmentUnavailable: they cannot; one line that says what is needed.
    """
    if not docker_client.find().containerd:
        raise EnvironmentUnavailable(
            "attestations (ATTEST=1, --attest) have no place in this engine's images; they need containerd's image "
            'store: a newer Docker, with "features": {"containerd-snapshotter": true} in its daemon.json'
        )


def build(
    environment: Environment, variant: str, say: Say, log: pathlib.Path | None = None, attest: bool = False
) -> None:
    """Build the image of an environment, if there is none of today's lock and code.

    Args:
        environment: which.
        variant: cpu or cuda.
        say: gets a line of progress now and then.
        log: file for what docker prints; None keeps it only for the error.
        attest: with a list of its packages and how it was built; whether one that is there has them, nobody can tell.

    Raises:
        EnvironmentUnavailable: it cannot be built; one line that says why.
    """
    environment.lock(variant)
    if current(environment, variant) and not attest:
        return
    say(f"builds the image {tag(environment, variant)}")
    settings = pip_settings.read()
    with image_inputs.wheels(environment, settings) as placed:
        secrets = image_inputs.secrets(settings, placed or image_inputs.offered(environment, variant, settings))
        with image_inputs.context(environment) as folder:
            words = [*secrets[0], *(_attestations() if attest else ())]
            _build(definition(environment, variant), folder, (words, secrets[1]), environment.name, say, log)


def build_host(say: Say, attest: bool = False) -> None:
    """Build the image of the host side, which plans and reports in docker-compose.yml, unless it is of today's code.

    Raises:
        EnvironmentUnavailable: it cannot be built; one line that says why.
    """
    if is_there(wanted_host()) and not attest:
        return
    words, variables = image_inputs.secrets(pip_settings.read(), True)
    words += _attestations() if attest else ()
    _build(HOST, _ROOT, (words, variables), "orchestrator", say, None)


def remove(environment: Environment) -> list[str]:
    """Remove the images of an environment in all variants; return what was removed."""
    tags = [tag(environment, variant) for variant in environment.spec.locks if state(environment, variant) != MISSING]
    for one in tags:
        docker_client.remove_image(one)
    return tags


def leftovers(named: tp.Container[str]) -> tp.Iterator[Leftover]:
    """Yield the images of Consort but those that are named; what their code is of, nobody can tell."""
    for image in docker_client.images(f"{PREFIX}.environment"):
        for name in image.names:
            if name.startswith(f"{PREFIX}/") and name not in named:
                remove = functools.partial(docker_client.remove_image, name)
                yield Leftover(f"images {OUTDATED}", name, image.size, remove, image.made)
        if not image.names:
            remove = functools.partial(docker_client.remove_image, image.id)
            yield Leftover("images without a name", image.id, image.size, remove, None)


def forget(image: str | None) -> None:
    """Remove an image whose name a newer one has got; one with another name, or in use, stays."""
    with contextlib.suppress(EnvironmentUnavailable):
        if image and (old := docker_client.image(image)) and not old.names:
            docker_client.remove_image(image)


def _build(
    made: Build,
    context: pathlib.Path,
    secrets: tuple[list[str], dict[str, str]],
    name: str,
    say: Say,
    log: pathlib.Path | None,
) -> None:
    """Build an image, and forget the one whose name it gets."""
    words, variables = secrets
    given = {key: os.environ.get(variable) or default for key, (variable, default) in made.variables.items()}
    given = {**made.arguments, **given, "REVISION": given["REVISION"] or _revision()}
    command = ["docker", "build", "--progress", "plain", "--file", str(_ROOT / made.dockerfile), "--tag", made.tag]
    for key, value in given.items():
        command += ["--build-arg", f"{key}={value}"]
    before = _id(made.tag)
    _run([*command, *words, str(context)], variables, name, say, log)
    forget(before)


def _attestations() -> list[str]:
    """Return arguments of `docker build` for a list of packages and for how the image was built."""
    scanner = os.environ.get(_SCANNER[0]) or _SCANNER[1]
    return ["--attest", f"type=sbom,generator={scanner}", "--attest", "type=provenance,mode=max"]


def _revision() -> str:
    """Return the commit of this checkout, or nothing where it is none."""
    git = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""


def _made_of(image: str) -> dict[str, str]:
    """Return the hashes in an image; they are kept in the cache, as an image never changes."""
    kept = files.cache_root() / "images" / f"{image.rpartition(':')[2]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(files.read_text(kept)))
    try:
        found = dict(json.loads(docker_client.read_file(image, _MADE_OF)))
    except (ValueError, TypeError):
        return {}  # of a version that kept none
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
        kept.parent.mkdir(parents=True, exist_ok=True)
        files.replace(kept, json.dumps(found))
    return found


def _id(name: str) -> str | None:
    image = docker_client.image(name)
    return image.id if image else None


def _run(command: list[str], variables: dict[str, str], name: str, say: Say, log: pathlib.Path | None) -> None:
    lines: list[str] = []
    seen = (0, 0)  # of the stage with the most steps: stages are built side by side

    def read(line: str) -> None:
        nonlocal seen
        lines.append(line)
        step = _STEP.match(line)
        if step and (total := (int(step[2]), int(step[1]))) > seen:
            seen = total
            say(f"image: step {step[1]} of {step[2]}")

    with files.open_log(log) if log else contextlib.nullcontext() as out:
        code = processes.run(command, {**os.environ, "DOCKER_BUILDKIT": "1", **variables}, out, read)
    if code:
        where = f"; see {log}" if log else ""
        raise EnvironmentUnavailable(f"image {name} could not be built: {_reason(lines)}{where}")


def _reason(lines: list[str]) -> str:
    """Return the line that says why a build failed: what a step printed, rather than that it failed."""
    said = [re.sub(r"^#\d+ [\d.]+ ", "", line).strip() for line in lines]
    errors = [n for n, line in enumerate(said) if re.match(r"error|ERROR", line) and "failed to solve" not in line]
    if errors:
        first = errors[0]
        causes = list(itertools.takewhile(lambda line: line.startswith("cause: "), said[first + 1 :]))
        # the first is what uv was about, the last what went wrong; those between are layers of its libraries
        told = dict.fromkeys(line.removeprefix("cause: ") for line in (*causes[:1], *causes[-1:]))
        return redact(said[first]) + "".join(f" ({redact(cause)})" for cause in told)
    words = docker_client.reason("".join(lines[-5:])).rpartition("failed to do request: ")[2]
    mend = "`CONSORT_BASE_IMAGE_3_11` and `_3_7` name other base images"
    if "scanner" in words:
        mend = f"`{_SCANNER[0]}` names another scanner than {_SCANNER[1]}"
    return redact(words) + (f"; {mend}" if "/manifests/" in words else "")
