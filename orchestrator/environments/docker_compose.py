"""Compose of this machine: whether it can do what docker-compose.yml says, one go of it, and what goes have left."""

import os
import re
import shutil
import signal
import subprocess
import sys
import typing as tp

from orchestrator import files
from orchestrator.environments import docker_client
from orchestrator.environments.composition import BASE, GPU
from orchestrator.environments.definitions import IMAGES
from orchestrator.errors import EnvironmentUnavailable, RunFailed

_ROOT = IMAGES.parent
_NEEDED = (2, 20)  # the first whose `report` may follow a worker that has failed
_STEPS = ("folders", "plan", "report")  # the first that fails says how all has gone, else the last
# What `plan` would fetch weights with: they are here by then, and what a container is told can be looked at.
_SECRETS = ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
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
        project: name for its containers; what another go has left of them is removed first.
        variables: what the file is told.
        gpu: with docker-compose.gpu.yml.

    Returns:
        The exit code of its last step, or 128 and the signal that ended it.

    Raises:
        EnvironmentUnavailable: another go works on the same output.
        RunFailed: compose did not come to the report.
    """
    command = _command(project, BASE, *([GPU] if gpu else []))
    environment = {**{k: v for k, v in os.environ.items() if k not in _SECRETS}, **variables}
    with files.locked(files.cache_root() / "compose" / f"{project}.lock", _refuse_second):
        _remove(command, environment)
        try:
            ended, stopped = _run([*command, "up", "--no-build"], environment)
            code = _exit_code([*command, "ps", "--all", "--quiet"], environment)
        finally:
            left = _remove(command, environment)
    if stopped:
        return 128 + stopped
    if code is None:
        raise RunFailed(f"docker compose ended with {ended} before its report; its own words stand above; run it again")
    if left:
        raise RunFailed(f"docker compose down: {left}")
    return code


def _refuse_second() -> None:
    raise EnvironmentUnavailable("another `compose up` works on this output; wait for its end")


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, int]:
    """Run compose, which ends in order when this process is told to; return its exit code and the signal, or 0."""
    told: list[int] = []
    # in a session of its own: a terminal's Ctrl-C would reach it twice, and the second one means at once
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True) as process:

        def stop(number: int, _: tp.Any) -> None:
            told.append(number)
            if len(told) == 1:
                sys.stderr.write("stopping: finished arrays are kept, run again to go on (Ctrl-C again to kill)\n")
            process.send_signal(signal.SIGINT)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return process.returncode, told[0] if told else 0


def _remove(command: list[str], environment: dict[str, str]) -> str:
    """Remove the containers of a project; return why some stay, or nothing."""
    done = subprocess.run([*command, "down"], env=environment, capture_output=True, text=True, check=False)
    return docker_client.reason(done.stderr) if done.returncode else ""


def down() -> list[str]:
    """Remove what `docker compose up` in this checkout has left; return what that was.

    A project with a container of another folder is somebody else's, whatever it is called, and stays.

    Raises:
        RunFailed: something stays; one line of compose's that says why.
    """
    places: dict[str, set[str]] = {}
    labels = '{{.Label "com.docker.compose.project"}}\t{{.Label "com.docker.compose.project.working_dir"}}'
    shown = _ask("docker", "ps", "--all", "--filter", "label=com.docker.compose.project", "--format", labels)
    for line in shown.splitlines():
        project, _, place = line.partition("\t")
        if place:  # else it is no container of compose's, but of an image that compose has built
            places.setdefault(project, set()).add(os.path.realpath(place))
    environment = {k: v for k, v in os.environ.items() if k != "CONSORT_CACHE"}  # with it the file has no volume
    done: list[str] = []
    for project in sorted(name for name, found in places.items() if found == {str(_ROOT)}):
        command = [*_command(project, BASE), "down", "--volumes"]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if told.returncode:
            raise RunFailed(f"docker compose down: {docker_client.reason(told.stderr)}")
        done += re.findall(r"((?:Container|Volume|Network) \S+)\s+Removed", told.stderr)
    return done


def _command(project: str, *names: str) -> list[str]:
    command = [shutil.which("docker") or "docker", "compose", "--project-directory", str(_ROOT)]
    return [*command, "--project-name", project, *(word for name in names for word in ("--file", str(_ROOT / name)))]


def _exit_code(command: list[str], environment: dict[str, str]) -> int | None:
    """Return how the report has ended, or a step before it that failed; None where it did not come to that."""
    for step in _STEPS:
        container = _ask(*command, step, environment=environment)
        told = _ask("docker", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container).split()
        if container and told and told[0] == "exited" and (step == _STEPS[-1] or told[1] != "0"):
            return int(told[1])
    return None


def _ask(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()
