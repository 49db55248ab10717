"""The Docker engine of this machine, asked through its command line.

The command line and not an API client: it is there wherever Docker is, knows the user's contexts and
plugins, and builds with BuildKit.
"""

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import tarfile
import typing as tp

from orchestrator.errors import EnvironmentUnavailable

PREFIX = "consort"  # of images, labels and names of containers
_TIMEOUT = 20.0  # seconds for a question


@dataclasses.dataclass(frozen=True)
class DockerEngine:
    """What matters about an engine."""

    name: str  # "Docker 28.2.2"
    podman: bool
    rootless: bool
    selinux: bool
    remapped: bool = False  # users inside are others outside, unless a container asks for the host's


def find() -> DockerEngine:
    """Return the engine that answers.

    Raises:
        EnvironmentUnavailable: none does; one line that says what to do.
    """
    if shutil.which("docker") is None:
        raise EnvironmentUnavailable("docker is not installed; install Docker, or use `runtime: venv`")
    try:
        facts = json.loads(ask("version", "--format", "{{json .Server}}") or "null") or {}
    except EnvironmentUnavailable as error:
        words = str(error).removeprefix("docker version: ").partition(". Is the docker")[0]
        raise EnvironmentUnavailable(f"no Docker engine answers ({words}); start it, or use `runtime: venv`") from error
    options = json.loads(ask("info", "--format", "{{json .SecurityOptions}}") or "null") or []
    component = (facts.get("Components") or [{}])[0]
    podman = "podman" in component.get("Name", "").lower()
    return DockerEngine(
        name=f"{'Podman' if podman else 'Docker'} {component.get('Version') or facts.get('Version', '')}".strip(),
        podman=podman,
        rootless=any("rootless" in option for option in options),
        selinux=any("selinux" in option for option in options),
        remapped=any("name=userns" in option for option in options),
    )


def ask(*arguments: str, timeout: float = _TIMEOUT) -> str:
    """Return what `docker` prints.

    Raises:
        EnvironmentUnavailable: it fails; its own last line says why.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnavailable(f"docker {arguments[0]}: no answer within {timeout:.0f} s") from error
    except OSError as error:
        raise EnvironmentUnavailable(f"docker cannot be run: {error.strerror}; use `runtime: venv`") from error
    if done.returncode:
        raise EnvironmentUnavailable(f"docker {arguments[0]}: {reason(done.stderr)}")
    return done.stdout.strip()


def reason(text: str) -> str:
    """Return the line of docker's words that says why, without its own dressing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("See '", "Run 'docker", "time="))]
    line = next((line for line in told if "Error" in line or "error" in line), (told or lines or ["no words"])[-1])
    for dressing in ("docker: ", "Error response from daemon: ", "ERROR: ", "Error: "):
        line = line.removeprefix(dressing)
    return line.removesuffix(".")


def read_file(image: str, path: str) -> bytes:
    """Return what a file of an image holds; nothing of the image is run.

    Raises:
        EnvironmentUnavailable: it has no such file.
    """
    container = ask("create", "--pull", "never", "--label", f"{PREFIX}.look", image)
    try:
        copied = subprocess.run(["docker", "cp", f"{container}:{path}", "-"], capture_output=True, timeout=_TIMEOUT)
        with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
            found = archive.extractfile(archive.getmembers()[0])
            return found.read() if found else b""
    except (subprocess.SubprocessError, tarfile.TarError, IndexError) as error:
        raise EnvironmentUnavailable(f"image {image}: {path} cannot be read") from error
    finally:
        remove([container])


def containers(label: str, running: bool = False) -> list[str]:
    """Return the ids of the containers with a label, also of those that only were created or have ended."""
    every = [] if running else ["--all"]
    return ask("ps", *every, "--quiet", "--no-trunc", "--filter", f"label={label}").split()


def remove(names: tp.Sequence[str]) -> None:
    """Remove containers, whatever they do; one that is gone already, or an engine too busy, is no trouble.

    What is left is swept by the next run.
    """
    if names:
        command = ["docker", "rm", "--force", "--volumes", *names]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
