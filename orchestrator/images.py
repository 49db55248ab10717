"""Build the container images of the environments, and tell whether they are those of this checkout.

An image is named by its environment and variant, and labelled with the hashes of its lock and of the code
inside: one whose labels are not today's is built again, which takes a second where only code has changed.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import typing as tp

from orchestrator import docker_engine, pip_settings
from orchestrator.docker_engine import PREFIX
from orchestrator.environments import IMAGES, Environment
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.index import PackageIndex

Say = tp.Callable[[str], None]
READY, OUTDATED, MISSING = "ready", "of other code", "not built"
_ROOT = IMAGES.parent
_LOCAL_WHEELS = IMAGES / "local-wheels"
_RUNNING: set["subprocess.Popen[str]"] = set()  # what `cancel` ends
_CANCELLED = threading.Event()
_STEP = re.compile(r"#\d+ \[(?:[\w-]+ )?(\d+)/(\d+)\] (\w+)")
_WHEELS = threading.Lock()  # two builds side by side share one folder of wheels
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def tag(environment: Environment, variant: str) -> str:
    """Return the name of an image: `consort/torch-cuda:cpu`."""
    return f"{PREFIX}/{environment.name}:{variant}"


def state(environment: Environment, variant: str) -> str:
    """Return READY, OUTDATED or MISSING."""
    try:
        labels = json.loads(
            docker_engine.ask("image", "inspect", "-f", "{{json .Config.Labels}}", tag(environment, variant))
        )
    except EnvironmentUnavailable:
        return MISSING
    made_of = {label: (labels or {}).get(f"{PREFIX}.{label}") for label in ("lock", "worker")}
    today = {"lock": environment.lock_sha256(variant), "worker": environment.worker_sha256()}
    return READY if made_of == today else OUTDATED


def current(environment: Environment, variant: str) -> bool:
    """Return whether there is an image of today's lock and code."""
    return state(environment, variant) == READY


def size(environment: Environment, variant: str) -> int | None:
    """Return the bytes of an image, or None where there is none."""
    try:
        return int(docker_engine.ask("image", "inspect", "-f", "{{.Size}}", tag(environment, variant)))
    except EnvironmentUnavailable:
        return None


def build(environment: Environment, variant: str, say: Say, log: pathlib.Path | None = None) -> None:
    """Build the image of an environment, if there is none of today's lock and code.

    Args:
        environment: which.
        variant: cpu or cuda.
        say: gets a line of progress now and then.
        log: file for what docker prints; None keeps it only for the error.

    Raises:
        EnvironmentUnavailable: it cannot be built; one line that says why.
    """
    environment.lock(variant)
    if current(environment, variant):
        return
    say(f"builds the image {tag(environment, variant)}")
    with _local_wheels(environment, variant):
        _run(_command(environment, variant), environment, say, log)


def remove(environment: Environment) -> list[str]:
    """Remove the images of an environment in all variants; return what was removed."""
    tags = [tag(environment, variant) for variant in environment.spec.locks if state(environment, variant) != MISSING]
    for one in tags:
        docker_engine.ask("image", "rm", one, timeout=120)
    return tags


def cancel() -> None:
    """End the builds of this process."""
    _CANCELLED.set()
    for process in list(_RUNNING):
        process.kill()


def _command(environment: Environment, variant: str) -> list[str]:
    arguments = {
        "LOCK": environment.spec.locks[variant],
        "VARIANT": variant,
        "EXTRA_INDEX": environment.spec.extra_index.get(variant, ""),
        "LOCK_SHA256": environment.lock_sha256(variant),
        "WORKER_SHA256": environment.worker_sha256(),
        **_bases(environment),
    }
    file = environment.folder / "Dockerfile"
    command = ["docker", "build", "--progress", "plain", "--file", str(file), "--tag", tag(environment, variant)]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    for name, path in _secrets().items():
        command += ["--secret", f"id={name},src={path}"]
    return [*command, str(_ROOT)]


def _bases(environment: Environment) -> dict[str, str]:
    """Return other base images than the official ones, where the user names them."""
    own = os.environ.get(f"CONSORT_BASE_IMAGE_{environment.spec.python.replace('.', '_')}")
    tools = os.environ.get("CONSORT_BASE_IMAGE_3_11")
    return {**({"BASE_IMAGE": own} if own else {}), **({"TOOLS_IMAGE": tools} if tools else {})}


def _secrets() -> dict[str, str]:
    """Return what a build behind a proxy needs: this machine's own certificates, never left in an image."""
    own = pip_settings.read().cert or next((os.environ[v] for v in _CERTIFICATES if os.environ.get(v)), None)
    return {"ca.pem": own} if own and os.path.isfile(own) else {}


@contextlib.contextmanager
def _local_wheels(environment: Environment, variant: str) -> tp.Iterator[None]:
    """Put wheels that this machine has, and no index, where the build finds them."""
    with _WHEELS:
        placed = []
        for name, version in _local_versions(environment.lock(variant).read_text("utf-8")):
            python = environment.spec.python.replace(".", "")
            found = PackageIndex().local(name, f"{name}-{version}-cp{python}-*linux*")
            if found is not None:
                target = _LOCAL_WHEELS / found.name
                target.unlink(missing_ok=True)
                _link(found, target)
                placed.append(target)
        try:
            yield
        finally:
            for path in placed:
                path.unlink(missing_ok=True)


def _local_versions(lock: str) -> tp.Iterator[tuple[str, str]]:
    """Yield the pins of builds that the public index does not have: `torch==2.13.0+cpu`."""
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE):
        if "+" in version:
            yield name, version


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _run(command: list[str], environment: Environment, say: Say, log: pathlib.Path | None) -> None:
    lines: list[str] = []
    seen = (0, 0)  # of the stage with the most steps: stages are built side by side
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env={**os.environ, "DOCKER_BUILDKIT": "1"},
    ) as process:  # fmt: skip
        _RUNNING.add(process)
        if _CANCELLED.is_set():
            process.kill()
        try:
            for line in process.stdout or ():
                lines.append(line)
                step = _STEP.match(line)
                if step and (total := (int(step[2]), int(step[1]))) > seen:
                    seen = total
                    say(f"image: step {step[1]} of {step[2]}")
        except BaseException:
            process.kill()
            raise
        finally:
            _RUNNING.discard(process)
            if log:
                log.write_text("".join(lines), "utf-8")
    if process.returncode:
        where = f"; see {log}" if log else ""
        raise EnvironmentUnavailable(f"image {environment.name} could not be built: {_reason(lines)}{where}")


def _reason(lines: list[str]) -> str:
    """Return the line that says why a build failed: what a step printed, rather than that it failed."""
    said = [re.sub(r"^#\d+ [\d.]+ ", "", line).strip() for line in lines]
    errors = [line for line in said if re.match(r"(error|ERROR|\u00d7)", line) and "failed to solve" not in line]
    return errors[0] if errors else docker_engine.reason("".join(lines[-5:]))
