"""Containers: the same worker and the same shard through `docker run`, with nothing but what the shard needs.

A container has no network, no capabilities, a root file system that cannot be written, and sees the audio and
the weights read-only. Its standard input is the pipe of the process that launched it: whatever ends the
orchestrator closes the pipe, and the worker ends by itself.
"""

import csv
import hashlib
import io
import os
import pathlib
import sys
import time
import typing as tp

from orchestrator import files
from orchestrator.environments import definitions, devices, docker_client, images, registry
from orchestrator.environments.definitions import Environment
from orchestrator.environments.docker_client import PREFIX, DockerEngine
from orchestrator.environments.leftovers import Leftover
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.output.folder import OutputDir
from orchestrator.running import limits
from orchestrator.running.limits import Limits
from orchestrator.running.runtimes.base import Cause, Command, Mounts, Resources, Runtime
from orchestrator.weights.store import Weights
from worker.protocol import Shard

AUDIO, OUTPUT, WEIGHTS = "/audio", "/output", "/weights"  # the roots inside
_CANNOT_START = (125, 126, 127)  # exit codes of `docker run` itself; no worker ends with them
_PATIENCE = 20.0  # seconds that workers of a dead run get to end by themselves
_TAIL = 4096  # characters of a log that may hold the reason
# What the image itself needs: nothing of the user's may be mounted there.
_RESERVED: tuple[str, ...] = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
)  # fmt: skip
_RESERVED += ("/root", "/opt/consort", AUDIO, OUTPUT, WEIGHTS)
_TMP_FOLDER = "/tmp"  # noqa: S108 - of the container
# Lower than those of any engine, as raising one takes a capability that an engine may lack; 1024 is a shell's.
_ALONE = "com.docker.compose.project="  # images that compose has built would make compose take it for its own
_ULIMITS = ("core=0", "nofile=1024:1024")


class DockerRuntime(Runtime):
    """Starts `docker run IMAGE SHARD`; see the module's docstring."""

    name = "docker"
    every_variant = True

    def __init__(self, engine: DockerEngine, log: pathlib.Path | None = None) -> None:
        self.log = log
        self._engine = engine
        self._cdi = False
        self._attest = False
        self._names: dict[str, Limits] = {}  # of containers that may be there
        self._left: list[str] = []  # containers that could not be removed
        self._share = limits.share(1, engine.memory, engine.cpus)

    @classmethod
    def open(cls) -> "DockerRuntime":
        return cls(docker_client.find())

    @property
    def title(self) -> str:
        return self._engine.name

    def without_gpus(self) -> str | None:
        return f"{self.title} ignores requests for GPUs" if self._engine.podman else None

    def hesitates(self, used: tp.Sequence[tuple[Environment, str]]) -> str | None:
        states: dict[str, list[str]] = {}
        for environment, variant in used:
            states.setdefault(images.state(environment, variant), []).append(images.tag(environment, variant))
        states.pop(images.READY, None)
        lacking = " and ".join(f"{state}: {', '.join(tags)}" for state, tags in states.items())
        return f"{self.title} answers, but images are {lacking}; `make images` builds them" if lacking else None

    def state(self, environment: Environment, variant: str) -> str:
        return images.state(environment, variant)

    def place(self, environment: Environment, variant: str) -> str:
        return images.tag(environment, variant)

    def size(self, environment: Environment, variant: str) -> int | None:
        return images.size(environment, variant)

    def build_beside(self, say: tp.Callable[[str], None]) -> list[str]:
        """Build the host side, for docker-compose.yml."""
        if self._attest or not self._is_there(images.wanted_host(), say):
            images.build_host(say, self._attest)
        return [images.HOST_TAG]

    def _is_there(self, wanted: images.Wanted, say: tp.Callable[[str], None]) -> bool:
        """Return whether an image is there, or could be pulled."""
        return images.is_there(wanted) or registry.pulled(wanted, say, self.warn or say)

    def attest(self) -> None:
        images.check_attestations()
        self._attest = True

    def remove(self, environment: Environment) -> list[str]:
        return images.remove(environment)

    def build(self, environment: Environment, variant: str, say: tp.Callable[[str], None]) -> None:
        log = self.log / f"build-{environment.name}.log" if self.log else None
        if not self._attest and self._is_there(images.wanted(environment, variant), say):
            return
        images.build(environment, variant, say, log, self._attest)

    def leftovers(self, named: tp.Container[str]) -> tp.Iterable[Leftover]:
        return images.leftovers(named)

    def divide(self, workers: int) -> str | None:
        self._share = limits.share(workers, self._engine.memory, self._engine.cpus)
        return self._share.words

    def command(
        self, shard: Shard, mounts: Mounts, file: pathlib.Path, events: pathlib.Path, resources: Resources
    ) -> Command:
        environment = definitions.find(shard.environment)
        name = f"{PREFIX}-{shard.id}.{shard.attempt}"
        mine = self._names[name] = self._share.granted(resources.memory)
        output = pathlib.Path(mounts.output)
        scratch = _inside(output, pathlib.Path(mounts.scratch))
        variables = {
            **resources.thread_variables,
            **environment.spec.variables,
            "HOME": scratch,
            "CONSORT_AUDIO": _audio(mounts),
            "CONSORT_OUTPUT": OUTPUT,
            "CONSORT_WEIGHTS": WEIGHTS,
            "CONSORT_SCRATCH": scratch,
            "CONSORT_EVENTS": _inside(output, events),
            "CONSORT_MODULES": " ".join(environment.spec.modules),
            "CONSORT_GPUS": ",".join(resources.gpus),
        }
        argv = ["docker", "run", "--interactive", "--pull", "never", "--name", name, "--workdir", scratch]
        argv += _labels(output, environment, shard.variant)
        argv += _isolation(self._engine, os.stat(output))
        argv += _fences(mine)
        argv += self._gpus(resources.gpus)
        for key, value in variables.items():
            argv += ["--env", f"{key}={value}"]
        for source, target, writable in _mounts(mounts):
            argv += ["--mount", _mount(source, target, writable)]
        argv += [images.tag(environment, shard.variant), _inside(output, file)]
        return Command(argv, dict(os.environ), mounts.scratch, kill=("docker", "kill", name))

    def script(
        self, environment: Environment, arguments: list[str], folder: str, gpus: tp.Sequence[str] = ()
    ) -> Command:
        """The folder keeps its path, and nothing else of this machine is seen but the weights."""
        if why := self.refuses(folder):
            raise EnvironmentUnavailable(why)
        terminal = ["--tty"] if not gpus and sys.stdin.isatty() and sys.stdout.isatty() else []
        argv = ["docker", "run", "--rm", "--interactive", *terminal, "--pull", "never", "--workdir", folder]
        argv += ["--label", _ALONE]
        argv += [*_isolation(self._engine, os.stat(folder)), *_fences(self._share), *self._gpus(gpus)]
        for key, value in {**environment.spec.variables, "CONSORT_WEIGHTS": WEIGHTS}.items():
            argv += ["--env", f"{key}={value}"]
        argv += ["--mount", _mount(folder, folder, True)]
        weights = Weights().root
        argv += ["--mount", _mount(str(weights), WEIGHTS, False)] if weights.is_dir() else []
        argv += ["--entrypoint", "python", images.tag(environment, "cuda" if gpus else "cpu"), *arguments]
        return Command(argv, dict(os.environ), folder)

    def compose_variables(self, output: str, workers: int, memory: int | None) -> dict[str, str]:
        """Return who docker-compose.yml works as, and what each worker may take: as in a container of `extract`."""
        user, group = _user(self._engine, os.stat(output))
        mine = limits.share(workers, self._engine.memory, self._engine.cpus).granted(memory)
        limited = {"CONSORT_MEMORY": mine.memory, "CONSORT_TMP": mine.tmp, "CONSORT_CPUS": mine.cpus}
        limited["CONSORT_PIDS"] = mine.processes
        return {"CONSORT_UID": str(user), "CONSORT_GID": str(group), **{k: str(v) for k, v in limited.items() if v}}

    def refuses(self, path: str) -> str | None:
        if not _is_reserved(path):
            return None
        return f"{path} would hide a part of the container; move it, or use `runtime: venv`"

    def end(self, name: str, code: int, log: pathlib.Path) -> Cause:
        container, problem = f"{PREFIX}-{name}", None
        try:
            killed = docker_client.ran_out_of_memory(container)
        except EnvironmentUnavailable as error:
            killed, problem = False, str(error)  # what the engine's absence did to the client is not the reason
        self._left += docker_client.remove([container])  # also one that was only created: a start that fails leaves it
        limit = self._names.pop(container, self._share).words
        if code in _CANNOT_START and problem is None:
            problem = _why_not_started(_tail(log))
        return Cause(killed, problem, limit)

    def outage(self, environment: Environment, variant: str) -> str | None:
        try:
            docker_client.find()
            gone = docker_client.image(images.tag(environment, variant)) is None
        except EnvironmentUnavailable as error:
            return str(error)
        self._left = docker_client.remove(self._left)
        return (
            f"image {images.tag(environment, variant)} is not there any more; `make images` builds it" if gone else None
        )

    @property
    def way(self) -> str:
        return "CDI" if self._cdi else "device requests"

    def another_way(self) -> bool:
        """Device requests first; then CDI, where the engine knows GPUs by specifications on the disk."""
        again, self._cdi = not self._cdi, True
        return again

    def sweep(self, output: OutputDir) -> None:
        sweep(output)

    def close(self) -> None:
        docker_client.remove([*self._left, *self._names])
        self._names.clear()

    def _gpus(self, gpus: tp.Sequence[str]) -> list[str]:
        if not gpus:
            return ["--env", "NVIDIA_VISIBLE_DEVICES=void"]  # an engine whose default runtime is NVIDIA's gives all
        if self._cdi:
            return [word for gpu in gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
        return ["--gpus", f'"device={",".join(gpus)}","capabilities=compute,utility"']


def sweep(output: OutputDir) -> None:
    """Remove the containers that dead runs have left, once they have committed what was finished."""
    label = _output_label(output.root)
    deadline = time.monotonic() + _PATIENCE
    while docker_client.containers(label, running=True) and time.monotonic() < deadline:
        time.sleep(0.2)  # their standard input is closed: they end by themselves
    docker_client.remove(docker_client.containers(label))


def _why_not_started(text: str) -> str:
    """Return docker's reason; what it says about GPUs may stand in any of its lines."""
    about_gpus = [line.strip() for line in text.splitlines() if devices.problem(line)]
    return about_gpus[0] if about_gpus else docker_client.reason(text)


def _isolation(engine: DockerEngine, owner: os.stat_result) -> list[str]:
    """Return what keeps a container from everything but its mounts."""
    argv = ["--init", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    argv += ["--security-opt", "no-new-privileges", "--log-driver", "none"]  # the log is what it prints here
    if engine.selinux:
        argv += ["--security-opt", "label=disable"]  # relabelling the user's audio is not ours to do
    if engine.remapped:
        argv += ["--userns", "host"]  # or the user inside would be another one outside, and could write nothing
    user, group = _user(engine, owner)
    argv += ["--user", f"{user}:{group}"]
    for other in os.getgroups() if user == os.getuid() != 0 else ():
        argv += ["--group-add", str(other)]  # audio may be readable by a group alone
    return argv


def _user(engine: DockerEngine, owner: os.stat_result) -> tuple[int, int]:
    if engine.rootless:
        return 0, 0  # which is the user who runs the engine
    return (os.getuid(), os.getgid()) if os.getuid() else (owner.st_uid, owner.st_gid)


def _fences(mine: Limits) -> list[str]:
    # /tmp is memory; exec since libraries unpack code there
    argv = ["--tmpfs", f"{_TMP_FOLDER}:rw,exec,nosuid,nodev,size={mine.tmp},mode=1777"]
    argv += ["--pids-limit", str(mine.processes), *(["--cpus", str(mine.cpus)] if mine.cpus else [])]
    argv += [word for limit in _ULIMITS for word in ("--ulimit", limit)]
    return [*argv, "--memory", str(mine.memory), "--memory-swap", str(mine.memory)] if mine.memory else argv


def _labels(output: pathlib.Path, environment: Environment, variant: str) -> list[str]:
    labels = (_output_label(output), f"{PREFIX}.environment={environment.name}", f"{PREFIX}.variant={variant}", _ALONE)
    return [word for label in labels for word in ("--label", label)]


def _output_label(output: pathlib.Path) -> str:
    """Return what marks the containers of an output folder, without telling where it is."""
    return f"{PREFIX}.output={hashlib.sha256(os.fsencode(os.path.realpath(output))).hexdigest()[:16]}"


def _mounts(mounts: Mounts) -> list[tuple[str, str, bool]]:
    """Return (source, target, writable); what the user names keeps its path, by which the shard knows it."""
    found = {_audio(mounts): (mounts.audio, False), OUTPUT: (mounts.output, True), WEIGHTS: (mounts.weights, False)}
    found.update({path: (path, False) for path in mounts.own})
    return [(source, target, writable) for target, (source, writable) in found.items() if source]


def _audio(mounts: Mounts) -> str:
    """Return where the audio is inside: where it is outside, if that can be, as links within it may be absolute."""
    real = os.path.realpath(mounts.audio)
    return AUDIO if _is_reserved(real) else real


def _is_reserved(path: str) -> bool:
    """Return whether mounting something at `path` would hide a part of the image, or the memory at /tmp."""
    above = any(one.startswith(path.rstrip("/") + "/") for one in (*_RESERVED, _TMP_FOLDER))
    return above or path == _TMP_FOLDER or any(path == one or path.startswith(one + "/") for one in _RESERVED)


def _mount(source: str, target: str, writable: bool) -> str:
    """Return the value of `--mount`, which is a line of CSV: a path may hold commas and quotes."""
    line = io.StringIO()
    fields = ["type=bind", f"source={source}", f"target={target}", *([] if writable else ["readonly"])]
    if any("\n" in field for field in fields):
        csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow(fields)
    else:
        csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _inside(output: pathlib.Path, path: pathlib.Path) -> str:
    """Return a path below the output folder as it is inside."""
    return f"{OUTPUT}/{path.relative_to(output).as_posix()}"


def _tail(log: pathlib.Path) -> str:
    try:
        return files.read_end(log, _TAIL)
    except OSError:
        return ""
