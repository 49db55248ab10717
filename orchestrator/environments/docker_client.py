"""The Docker engine of this machine, asked through Docker's SDK for Python.

It answers with values and typed errors where the command line prints text, and goes to the engine that the
command line would ask: that of `DOCKER_HOST`, of `DOCKER_CONTEXT`, or of `docker context use`. The command line
still starts workers, whose standard input it holds, and builds images, which needs BuildKit.
"""

import calendar
import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shutil
import sys
import tarfile
import time
import typing as tp

from orchestrator.errors import EnvironmentUnavailable

PREFIX = "consort"  # of images, labels and names of containers
_TIMEOUT = 20.0  # seconds for an answer
_REMOVAL = 120.0  # seconds for that to a removal
_SOCKET = "unix:///var/run/docker.sock"  # where an engine listens unless somebody says otherwise
_OLDEST = [20, 10]  # whose BuildKit can do what images/Dockerfile asks for
_NO_NAME = "<none>:<none>"
_LOGGED = re.compile(r'time="[^"]*" level=(?:error|fatal) msg="(.*)"$')  # as the `docker` command writes what it lost


@dataclasses.dataclass(frozen=True)
class DockerEngine:
    """What matters about an engine."""

    name: str  # "Docker 28.2.2"
    podman: bool
    rootless: bool
    selinux: bool
    remapped: bool = False  # users inside are others outside, unless a container asks for the host's
    memory: int = 0  # bytes of the machine it runs on, which may be a smaller one than this; 0: it does not say
    cpus: int = 0  # of that machine; 0: it does not say, or cannot limit them, as most rootless engines
    architecture: str = ""  # of that machine, as images name it: amd64
    containerd: bool = False  # images are in containerd's store, which keeps attestations of them


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of the engine; `made` is in seconds since 1970."""

    id: str
    names: tuple[str, ...]
    labels: dict[str, str]
    size: int
    made: float
    architecture: str = ""  # as engines call it: amd64; lists do not say it


class _Absent(EnvironmentUnavailable):
    """The engine does not know what it was asked about."""


class _Silent(EnvironmentUnavailable):
    """There is no engine, or it says nothing."""


def find() -> DockerEngine:
    """Return the engine that answers.

    Raises:
        EnvironmentUnavailable: none does, or nothing can start containers in it; one line that says what to do.
    """
    command = shutil.which("docker")
    try:
        with _client() as client:
            facts, info = client.version(api_version=False), client.info()
    except EnvironmentUnavailable as error:
        if command is None:
            raise EnvironmentUnavailable("docker is not installed; install Docker, or use `runtime: venv`") from error
        why = str(error).removeprefix("docker: ")
        mend = "let your user use it (group `docker`)" if "ermission denied" in why else _start()
        raise EnvironmentUnavailable(f"no Docker engine answers ({why}); {mend}, or use `runtime: venv`") from error
    if command is None:
        raise EnvironmentUnavailable(
            "a Docker engine answers, but the `docker` command that starts its containers is not installed; "
            "install Docker's client, or use `runtime: venv`"
        )
    options = info.get("SecurityOptions") or []
    component = (facts.get("Components") or [{}])[0]
    podman = "podman" in component.get("Name", "").lower()
    version = component.get("Version") or facts.get("Version", "")
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    if not podman and numbers < _OLDEST:
        raise EnvironmentUnavailable(f"Docker {version} is too old, 20.10 is needed; update it, or use `runtime: venv`")
    return DockerEngine(
        name=f"{'Podman' if podman else 'Docker'} {version}".strip(),
        podman=podman,
        rootless=any("rootless" in option for option in options),
        selinux=any("selinux" in option for option in options),
        remapped=any("name=userns" in option for option in options),
        memory=info.get("MemTotal") or 0,
        cpus=(info.get("NCPU") or 0) if info.get("CpuCfsQuota") else 0,
        architecture=facts.get("Arch") or "",
        containerd=any("containerd.snapshotter" in str(pair) for pair in info.get("DriverStatus") or ()),
    )


def image(name: str) -> Image | None:
    """Return the image of a name or id, or None where there is none.

    Raises:
        EnvironmentUnavailable: no engine answers.
    """
    with contextlib.suppress(_Absent), _client() as client:
        facts = client.inspect_image(name)
        made = calendar.timegm(time.strptime((facts.get("Created") or "1970-01-01T00:00:00")[:19], "%Y-%m-%dT%H:%M:%S"))
        labels = (facts.get("Config") or {}).get("Labels") or {}
        return Image(facts["Id"], _names(facts), labels, facts["Size"], made, facts.get("Architecture") or "")
    return None


def images(label: str) -> list[Image]:
    """Return the images with a label, also those that have lost their name.

    Raises:
        EnvironmentUnavailable: no engine answers.
    """
    with _client() as client:
        found = client.images(filters={"label": label})
    return [Image(one["Id"], _names(one), one.get("Labels") or {}, one["Size"], one["Created"]) for one in found]


def tag(image: str, name: str) -> None:
    """Give the image of an id one more name, which another one loses.

    Raises:
        EnvironmentUnavailable: there is no such image, or no engine answers.
    """
    repository, _, label = name.rpartition(":")
    with _client() as client:
        client.tag(image, repository, label)


def remove_image(name: str) -> None:
    """Remove a name of an image, and with the last one the image; one that is gone already is no trouble.

    Raises:
        EnvironmentUnavailable: the engine refuses, as while a container uses it.
    """
    with contextlib.suppress(_Absent), _client(_REMOVAL) as client:
        client.remove_image(name)


def containers(label: str, running: bool = False) -> list[str]:
    """Return the ids of the containers with a label, also of those that only were created or have ended.

    Raises:
        EnvironmentUnavailable: no engine answers.
    """
    with _client() as client:
        return [one["Id"] for one in client.containers(all=not running, filters={"label": label})]


def ran_out_of_memory(name: str) -> bool:
    """Return whether the kernel ended a container for its memory; not of one that is gone, or was never made.

    Raises:
        EnvironmentUnavailable: no engine answers.
    """
    with contextlib.suppress(_Absent), _client() as client:
        return bool(client.inspect_container(name)["State"].get("OOMKilled"))
    return False


def remove(names: tp.Sequence[str]) -> list[str]:
    """Remove containers, whatever they do, and return those that an engine too busy, or not there, may still have.

    One that is gone already is no trouble, and what is left is swept by the next run.
    """
    left: list[str] = []
    for number, name in enumerate(names):
        try:
            with contextlib.suppress(_Absent), _client() as client:
                client.remove_container(name, v=True, force=True)
        except _Silent:
            return [*left, *names[number:]]  # each would take as long
        except EnvironmentUnavailable:
            left.append(name)
    return left


def reason(text: str) -> str:
    """Return the line of the `docker` command's words that says why, without its own dressing.

    Lines of a worker may stand before those of the command, which ends with the connection to the engine.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line.removeprefix("docker: ") for line in lines if line.startswith("docker: ")]
    own += [found[1] for line in lines if (found := _LOGGED.match(line))]
    told = own or [line for line in lines if not line.startswith(("See '", "Run 'docker", "time="))]
    line = next((line for line in told if "Error" in line or "error" in line), (told or lines or ["no words"])[-1])
    for dressing in ("Error response from daemon: ", "ERROR: ", "Error: "):
        line = line.removeprefix(dressing)
    return line.removesuffix(".")


def read_file(image: str, path: str) -> bytes:
    """Return what a file of an image holds, nothing where there is no such file; nothing of the image is run.

    Raises:
        EnvironmentUnavailable: no engine answers.
    """
    label = f"{PREFIX}.look"
    with contextlib.suppress(_Absent, tarfile.TarError, IndexError), _client() as client:
        for left in client.containers(all=True, filters={"label": label, "status": "created"}):
            if time.time() - left["Created"] > _REMOVAL:  # of a process that was killed
                client.remove_container(left["Id"], force=True)
        container = client.create_container(image, labels={label: ""})["Id"]
        try:
            stream, _ = client.get_archive(container, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                found = archive.extractfile(archive.getmembers()[0])
                return found.read() if found else b""
        finally:
            client.remove_container(container, force=True)
    return b""


@contextlib.contextmanager
def _client(timeout: float | None = None) -> tp.Iterator[tp.Any]:
    """Yield a client of its own for each question, as several threads ask, and engines come and go.

    Raises:
        EnvironmentUnavailable: the engine does not answer, or refuses; one line.
    """
    host, client, timeout = _host(), None, timeout or _TIMEOUT
    import docker  # after it, and nowhere else: without an engine nobody needs the SDK

    try:
        client = docker.from_env(timeout=timeout)
        yield client.api
    except docker.errors.NotFound as error:
        raise _Absent(f"docker: {_first_line(error.explanation)}") from error
    except docker.errors.APIError as error:
        raise EnvironmentUnavailable(f"docker: {_first_line(error.explanation or error)}") from error
    except (docker.errors.DockerException, OSError) as error:
        raise _Silent(f"docker: {host}: {_why(error, timeout)}") from error
    finally:
        if client is not None:
            client.close()


def _host() -> str:
    """Return the address of the engine; what the SDK would pass over in silence is an error here."""
    host = os.environ.get("DOCKER_HOST") or (_of_context() if _has_context() else _SOCKET)
    if host.startswith("ssh://"):
        raise EnvironmentUnavailable(f"docker: {host}: an engine elsewhere does not see the folders of this machine")
    if host.startswith("unix://") and not os.path.exists(host.removeprefix("unix://")):
        raise _Silent(f"docker: {host}: no such socket")
    return host


def _has_context() -> bool:
    folder = pathlib.Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()
    with contextlib.suppress(OSError):
        if "currentContext" in (folder / "config.json").read_text(encoding="utf-8", errors="replace"):
            return True
    return bool(os.environ.get("DOCKER_CONTEXT"))


def _of_context() -> str:
    import docker

    name = os.environ.get("DOCKER_CONTEXT")
    try:
        context = docker.ContextAPI.get_context(name)
    except Exception as error:  # the SDK has no error of its own for a context that cannot be read
        raise EnvironmentUnavailable(f"docker: context {name or 'in use'}: {_first_line(error)}") from error
    if context is None:  # the SDK would ask another engine
        raise EnvironmentUnavailable(f"docker: no context {name or 'of that name'}; see `docker context ls`")
    return str(context.Host)


def _why(error: BaseException, timeout: float) -> str:
    """Return what the system said below the layers of libraries that the SDK asks through."""
    below: BaseException | None = error
    while below is not None:
        if "imeout" in type(below).__name__:
            return f"no answer within {timeout:.0f} s"
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return _first_line(error)


def _start() -> str:
    """Return how an engine is started, where it is one that this machine's service manager knows."""
    host = os.environ.get("DOCKER_HOST") or _SOCKET
    if sys.platform == "darwin" or host not in (_SOCKET, f"unix:///run/user/{os.getuid()}/docker.sock"):
        return "start it"
    return f"start it (`{'sudo systemctl' if host == _SOCKET else 'systemctl --user'} start docker`)"


def _first_line(words: object) -> str:
    return (str(words).strip().splitlines() or ["no words"])[0].removesuffix(".")


def _names(facts: dict[str, tp.Any]) -> tuple[str, ...]:
    names = [name for name in facts.get("RepoTags") or () if name != _NO_NAME]
    return tuple(name.removeprefix("docker.io/").removeprefix("localhost/") for name in names)  # which Podman writes
