"""Compose of this machine: whether it can do what docker-compose.yml says, one go of it, and what goes have left."""

import os
import re
import shutil
import signal
import subprocess
import typing as tp

from orchestrator.environments import docker_client
from orchestrator.environments.composition import BASE, GPU
from orchestrator.environments.definitions import IMAGES
from orchestrator.errors import EnvironmentUnavailable, RunFailed

_ROOT = IMAGES.parent
_NEEDED = (2, 20)  # the first whose `report` may follow a worker that has failed
_STEPS = ("report", "plan", "folders")  # the last that has ended says how all has gone
_MEND = "install Docker's package docker-compose-plugin, or use `consort extract`"


def check() -> None:
    """Look whether there is an engine, and a compose that is new enough.

    Raises:
        EnvironmentUnavailable: one line that says what to do.
    """
    docker_client.find()
    version = _ask("docker", "compose", "version", "--short")
    if not version:
        raise EnvironmentUnavailable(f"docker compose is not installed; {_MEND}")
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _NEEDED:
        needed = ".".join(map(str, _NEEDED))
        raise EnvironmentUnavailable(f"docker compose {version} is too old, {needed} is needed; {_MEND}")


def up(project: str, variables: tp.Mapping[str, str], gpu: bool) -> int:
    """Run docker-compose.yml to its end, with what its services print, and remove its containers.

    Args:
        project: name for its containers.
        variables: what the file is told.
        gpu: with docker-compose.gpu.yml.

    Returns:
        The exit code of its last step, or 130.

    Raises:
        RunFailed: compose could not start the first step.
    """
    command = _command(project, BASE, *([GPU] if gpu else []))
    environment = {**os.environ, **variables}
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))  # compose gets it, too
    try:
        ended = subprocess.run([*command, "up", "--no-build"], env=environment, stdin=subprocess.DEVNULL, check=False)
        code = _exit_code([*command, "ps", "--all", "--quiet"], environment)
    finally:
        subprocess.run([*command, "down"], env=environment, capture_output=True, check=False)
        signal.signal(signal.SIGINT, before)
    if interrupted:
        return 128 + interrupted[0]
    if code is None:
        raise RunFailed(f"docker compose ended with {ended.returncode} and started nothing; its own words stand above")
    return code


def down() -> list[str]:
    """Remove what `docker compose up` in this checkout has left; return what that was.

    Raises:
        RunFailed: something stays; one line of compose's that says why.
    """
    own = f"label=com.docker.compose.project.working_dir={_ROOT}"
    shown = _ask("docker", "ps", "--all", "--filter", own, "--format", '{{.Label "com.docker.compose.project"}}')
    done: list[str] = []
    for project in [None, *sorted(set(shown.split()))]:
        told = subprocess.run(
            [*_command(project, BASE), "down", "--volumes"], capture_output=True, text=True, check=False
        )
        if told.returncode:
            raise RunFailed(f"docker compose down: {docker_client.reason(told.stderr)}")
        done += re.findall(r"((?:Container|Volume|Network) \S+)\s+Removed", told.stderr)
    return list(dict.fromkeys(done))


def _command(project: str | None, *names: str) -> list[str]:
    command = [shutil.which("docker") or "docker", "compose", "--project-directory", str(_ROOT)]
    command += ["--project-name", project] if project else []
    return command + [word for name in names for word in ("--file", str(_ROOT / name))]


def _exit_code(command: list[str], environment: dict[str, str]) -> int | None:
    """Return how the last step that began has ended."""
    for step in _STEPS:
        container = _ask(*command, step, environment=environment)
        told = _ask("docker", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container).split()
        if container and told and told[0] != "created":
            return int(told[1])
    return None


def _ask(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()
