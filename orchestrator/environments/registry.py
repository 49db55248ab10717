"""Images in a registry: pushed under a name, written down by digest, and pulled by that instead of being built.

What `digests.lock` says is an address and nothing more. The engine holds what it pulls to the digest, and the image is
held to the hashes of today's lock and code before it gets the name that workers are started by.
"""

import dataclasses
import os
import pathlib
import re
import typing as tp

from orchestrator import files
from orchestrator.environments import docker_client, images, processes
from orchestrator.environments.images import Wanted
from orchestrator.environments.processes import Say
from orchestrator.errors import EnvironmentUnavailable, JobError

_HEADER = """\
# Images in registries, by digest: written by `consort envs push` (make push), taken by `consort envs pull` (make pull)
# where lock and code are those of today. image variant architecture lock code digest registry
"""
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REGISTRY = rf"[a-z0-9]+(?:[.-]+[a-z0-9]+)*(?::\d{{1,5}})?(?:/{_NAME})*"
_LINE = re.compile(
    rf"({_NAME}) ([a-z0-9]+) ([a-z0-9]+) ([0-9a-f]{{64}}) ([0-9a-f]{{64}}) (sha256:[0-9a-f]{{64}}) ({_REGISTRY})"
)
_DIGEST = re.compile(r".*digest: (sha256:[0-9a-f]{64})\b")
_LAYER = re.compile(r"[0-9a-f]+: (Pull complete|Already exists|Pushed|Layer already exists|Mounted from)")


@dataclasses.dataclass(frozen=True, order=True)
class Pushed:
    """A line of `digests.lock`."""

    name: str
    variant: str
    architecture: str  # as engines call it: amd64
    lock: str
    worker: str
    digest: str
    registry: str

    @property
    def address(self) -> str:
        """What is pulled."""
        return f"{self.registry}/{self.name}@{self.digest}"


def check(registry: str) -> str:
    """Return the address of a registry, as a person has typed it.

    Raises:
        JobError: it is none.
    """
    if not re.fullmatch(_REGISTRY, registry):
        raise JobError(f"--registry {registry!r}: no address of a registry; such as registry.example:5000/consort")
    return registry


def push(wanted: Wanted, registry: str, say: Say) -> str:
    """Push an image of today's lock and code, and write its digest down; return where it is.

    Args:
        wanted: which.
        registry: host[:port][/name], whose credentials are those of `docker login`.
        say: gets a line of progress now and then.

    Raises:
        EnvironmentUnavailable: there is no such image here, or it could not be pushed; one line.
    """
    known = _read(wanted.digests)
    image = docker_client.image(wanted.tag)
    if image is None or not images.holds(image.id, wanted):
        state = images.MISSING if image is None else images.OUTDATED
        raise EnvironmentUnavailable(f"{wanted.tag}: {state}, and not pushed; `make images` builds it")
    remote = f"{registry}/{wanted.name}:{wanted.variant}-{wanted.lock[:8]}-{wanted.worker[:8]}"
    docker_client.tag(image.id, remote)
    try:
        lines = _run("push", remote, f"{wanted.tag} could not be pushed to {registry}", say)
    finally:
        if remote not in image.names:  # one of the user's own
            docker_client.remove_image(remote)
    digest = next((found[1] for line in reversed(lines) if (found := _DIGEST.match(line))), None)
    if digest is None:
        raise EnvironmentUnavailable(f"{wanted.tag}: docker has not said under which digest {remote} was pushed")
    made = Pushed(wanted.name, wanted.variant, image.architecture, wanted.lock, wanted.worker, digest, registry)
    _write(wanted.digests, (*known, made))
    return f"{remote} is {digest}"


def find(wanted: Wanted) -> Pushed | None:
    """Return where an image of today's lock and code is, for this engine's machine; None where nobody has pushed one.

    Raises:
        EnvironmentUnavailable: the file is damaged, or no engine answers.
    """
    today = [one for one in _read(wanted.digests) if (one.name, one.variant) == (wanted.name, wanted.variant)]
    today = [one for one in today if (one.lock, one.worker) == (wanted.lock, wanted.worker)]
    machine = docker_client.find().architecture if today else ""
    return next((one for one in today if one.architecture == machine), None)


def pull(wanted: Wanted, say: Say) -> None:
    """Pull an image by its digest, and give it its name if it is of today's lock and code.

    Raises:
        EnvironmentUnavailable: there is none, or it is refused; one line that says why.
    """
    found = find(wanted)
    if found is None:
        raise EnvironmentUnavailable(f"{wanted.tag}: {wanted.digests.name} names none of today's lock and code")
    before, had = docker_client.image(wanted.tag), docker_client.image(found.address)
    say(f"pulls the image {wanted.tag} from {found.registry}")
    try:
        _run("pull", found.address, f"{wanted.tag} could not be pulled from {found.registry}", say)
        image = docker_client.image(found.address)
        why = _unlike(image, wanted, found) if image else "not there"
        if image is None or why:
            raise EnvironmentUnavailable(f"{wanted.tag}: what {found.registry} has is {why}; it is not used")
        docker_client.tag(image.id, wanted.tag)
    finally:
        if had is None:
            docker_client.remove_image(found.address)  # with the image, where it has got no name
    if before and before.id != image.id:
        images.forget(before.id)


def _unlike(image: docker_client.Image, wanted: Wanted, found: Pushed) -> str | None:
    """Return why an image is not what was meant, or None."""
    if image.architecture != found.architecture:
        return f"not for {found.architecture}"
    return None if images.holds(image.id, wanted) else "of another lock or code"


def pulled(wanted: Wanted, say: Say, warn: Say) -> bool:
    """Pull an image rather than build it, where somebody has pushed it; return whether it is there now.

    Args:
        wanted: which.
        say: gets a line of progress now and then.
        warn: gets why it could not be pulled.
    """
    try:
        if find(wanted) is None:
            return False
        pull(wanted, say)
    except EnvironmentUnavailable as error:
        if processes.cancelled.is_set():  # nor would a build begin
            raise
        warn(f"{error}; builds it instead")
        return False
    return True


def _read(path: pathlib.Path) -> list[Pushed]:
    try:
        lines = files.read_text(path).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise EnvironmentUnavailable(f"{path.name} cannot be read; remove it, or mend it ({error})") from error
    found: list[Pushed] = []
    for number, line in enumerate(lines, 1):
        fields = _LINE.fullmatch(line)
        if fields:
            found.append(Pushed(*fields.groups()))
        elif line and not line.startswith("#"):
            raise EnvironmentUnavailable(f"{path.name}: line {number} names no image; remove it, and push again")
    return found


def _write(path: pathlib.Path, found: tp.Iterable[Pushed]) -> None:
    """Write the last of each image; no reader sees half a file."""
    last = {(one.name, one.variant, one.architecture): one for one in found}
    files.replace(path, _HEADER + "".join(" ".join(dataclasses.astuple(one)) + "\n" for one in sorted(last.values())))


def _run(verb: str, address: str, failure: str, say: Say) -> list[str]:
    """Push or pull by the `docker` command, which knows the user's credentials; return what it prints."""
    lines: list[str] = []

    def read(line: str) -> None:
        lines.append(line.strip())
        if _LAYER.match(line):
            say(f"{verb}: {sum(map(bool, map(_LAYER.match, lines)))} layers done")

    if processes.run(["docker", verb, address], dict(os.environ), None, read):
        why = processes.redact(docker_client.reason("\n".join(lines)))
        asks = re.search(r"denied|unauthorized|authentication required|no basic auth", why)
        raise EnvironmentUnavailable(f"{failure}: {why}" + ("; `docker login` says who you are" if asks else ""))
    return lines
