"""Containers without an engine: what is asked of docker, and what its answers mean. A script plays the client."""

import csv
import os
import pathlib
import types

import pytest

from orchestrator.environments import definitions, devices, docker_client
from orchestrator.environments.devices import Gpu, Grant
from orchestrator.environments.docker_client import DockerEngine
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.job import spec
from orchestrator.running import placement
from orchestrator.running.runtimes import docker
from orchestrator.running.runtimes.base import Mounts, Resources
from orchestrator.running.runtimes.docker import DockerRuntime
from worker.protocol import Item, Shard, Task

ENGINE = DockerEngine("Docker 28.2.2", podman=False, rootless=False, selinux=False)
SHARD = Shard("s-0", 2, "torch-cuda", [Task("m", "mert", "k")], [Item("a.wav", "a", 1, 2, ["m"])])
NOTHING = Resources()
UUID = "GPU-11111111-0000-4000-8000-000000000001"


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Return a function that puts a `docker` first on PATH; it answers by the first word of its arguments."""

    def put(**answers):
        lines = "".join(f"{word}) {answer};;\n" for word, answer in answers.items())
        program = tmp_path / "docker"
        program.write_text(f'#!/bin/sh\ncase "$1" in\n{lines}esac\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def server(name="DockerEngine", version="28.2.2", options='["name=seccomp,profile=default"]'):
    facts = f'{{"Version":"{version}","Components":[{{"Name":"{name}","Version":"{version}"}}]}}'
    return {"version": f"echo '{facts}'", "info": f"echo '{options}'"}


def words(command, flag):
    """Return the values of a flag that is given several times."""
    return [value for name, value in zip(command.argv, command.argv[1:], strict=False) if name == flag]


@pytest.fixture
def command(tmp_path):
    """Return a function that makes the command of a shard."""

    def make(engine=ENGINE, resources=NOTHING, **changes):
        output = tmp_path / "out"
        output.mkdir(exist_ok=True)
        places = {"audio": str(tmp_path), "output": str(output), "weights": "/w", "scratch": str(output / "s")}
        mounts = Mounts(**{**places, "ffmpeg": "", **changes})
        return DockerRuntime(engine).command(SHARD, mounts, output / "s.json", output / "e.jsonl", resources)

    return make


def test_an_engine_is_known_by_what_it_says(client):
    client(**server(options='["name=rootless","name=selinux"]'))
    assert docker_client.find() == DockerEngine("Docker 28.2.2", podman=False, rootless=True, selinux=True)
    client(**server(name="Podman DockerEngine", version="4.3.1"))
    assert docker_client.find() == DockerEngine("Podman 4.3.1", podman=True, rootless=False, selinux=False)


def test_without_docker_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentUnavailable, match="docker is not installed; install Docker, or use `runtime: venv`"):
        docker_client.find()


def test_an_engine_that_does_not_run_is_one_line(client):
    client(version="echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1")
    with pytest.raises(
        EnvironmentUnavailable,
        match=r"no Docker engine answers \(Cannot connect to the Docker daemon at unix:///x\); start",
    ):
        docker_client.find()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("docker: Error response from daemon: no such image.\nSee 'docker run --help'.\n", "no such image"),
        ("worker line\ndocker: Error response from daemon: could not select device driver\n\nRun 'docker run --help'\n",
         "could not select device driver"),
        ("", "no words"),
    ],
)  # fmt: skip
def test_the_reason_is_taken_out_of_dockers_words(text, line):
    assert docker_client.reason(text) == line


def test_a_container_gets_nothing_but_its_mounts(command):
    made = command()
    assert made.argv[:4] == ["docker", "run", "--interactive", "--pull"]
    assert made.kill == ("docker", "kill", "consort-s-0.2")
    assert {"--init", "--read-only"} <= set(made.argv)
    assert words(made, "--network") == ["none"] and words(made, "--cap-drop") == ["ALL"]
    assert words(made, "--security-opt") == ["no-new-privileges"]
    assert made.argv[-2:] == ["consort/torch-cuda:cpu", "/output/s.json"]
    variables = dict(word.split("=", 1) for word in words(made, "--env"))
    assert variables["CONSORT_EVENTS"] == "/output/e.jsonl" and variables["HOME"] == "/output/s"
    assert variables["HF_HUB_OFFLINE"] == "1" and variables["OMP_NUM_THREADS"] == "1"


def test_memory_is_limited_where_the_job_limits_it(command):
    assert "--memory" not in command().argv
    limited = command(resources=Resources(memory=1 << 30))
    assert words(limited, "--memory") == words(limited, "--memory-swap") == [str(1 << 30)]


def test_gpus_are_asked_for_by_uuid_and_then_by_cdi(command):
    assert "NVIDIA_VISIBLE_DEVICES=void" in words(command(), "--env")
    granted = command(resources=Resources(gpus=(UUID,)))
    assert words(granted, "--gpus") == [f'"device={UUID}","capabilities=compute,utility"']
    assert f"CONSORT_GPUS={UUID}" in words(granted, "--env")
    runtime = DockerRuntime(ENGINE)
    assert [runtime.another_way(), runtime.another_way()] == [True, False]
    assert runtime._gpus([UUID]) == ["--device", f"nvidia.com/gpu={UUID}"]


def test_a_rootless_engine_runs_as_its_own_user(command):
    assert words(command(DockerEngine("Docker", False, rootless=True, selinux=False)), "--user") == ["0:0"]


def test_selinux_is_told_to_leave_the_users_audio_alone(command):
    made = command(DockerEngine("Docker", False, False, selinux=True))
    assert words(made, "--security-opt") == ["no-new-privileges", "label=disable"]


def test_root_is_the_owner_of_the_output_folder_and_others_are_themselves(monkeypatch):
    owner = types.SimpleNamespace(st_uid=1234, st_gid=2345)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert docker._isolation(ENGINE, owner)[-2:] == ["--user", "1234:2345"]
    monkeypatch.setattr(os, "getuid", lambda: 77)
    monkeypatch.setattr(os, "getgid", lambda: 88)
    monkeypatch.setattr(os, "getgroups", lambda: [88, 99])
    assert docker._isolation(ENGINE, owner)[-6:] == ["--user", "77:88", "--group-add", "88", "--group-add", "99"]


def test_mounts_survive_commas_and_quotes(command, tmp_path):
    audio = tmp_path / 'a, "b"'
    audio.mkdir()
    own = "/data/my weights.h5"
    mounts = [next(csv.reader([word])) for word in words(command(audio=str(audio), own=(own,)), "--mount")]
    found = [dict(field.partition("=")[::2] for field in mount) for mount in mounts]
    assert {(one["source"], one["target"], "readonly" in one) for one in found} == {
        (str(audio), str(audio), True),
        (str(tmp_path / "out"), "/output", False),
        ("/w", "/weights", True),
        (own, own, True),
    }


@pytest.mark.parametrize(
    "path", ["/", "/usr", "/usr/share/sounds", "/opt", "/opt/consort", "/tmp", "/output/x", "/root"]
)
def test_what_would_hide_the_image_keeps_no_path_of_its_own(command, path):
    assert DockerRuntime(ENGINE).refuses(path)
    assert docker._audio(Mounts(path, "/o", "/w", "/s", "")) == "/audio" or os.path.realpath(path) != path


@pytest.mark.parametrize("path", ["/home/me/music", "/data", "/optional", "/tmp/0", "/mnt/usr"])
def test_other_paths_are_the_same_inside(path):
    assert DockerRuntime(ENGINE).refuses(path) is None


@pytest.fixture
def job(tmp_path):
    """Return a function that makes a job of crepe, which could use a GPU."""
    (tmp_path / "audio").mkdir()

    def make(**keys):
        places = {"audio": str(tmp_path / "audio"), "output": str(tmp_path / "out")}
        return spec.check({**places, "models": ["crepe"], **keys})

    return make


def labels(variant="cpu"):
    environment = definitions.find("tf-cuda")
    return f'{{"consort.lock":"{environment.lock_sha256(variant)}","consort.worker":"{environment.worker_sha256()}"}}'


def test_auto_takes_the_engine_only_with_the_images_of_today(client, job):
    client(**server(), image=f"echo '{labels()}'")
    placed = placement.choose(job(devices="cpu"))
    assert (placed.runtime.name, placed.why) == ("docker", "auto: Docker 28.2.2 answers and the images are there")
    client(**server(), image='echo \'{"consort.lock":"old"}\'')
    placed = placement.choose(job(devices="cpu"))
    assert placed.runtime.name == "venv"
    assert placed.why.endswith("images are of other code: consort/tf-cuda:cpu; `make images` builds them")
    client(**server(), image="exit 1")
    assert "not built: consort/tf-cuda:cpu" in placement.choose(job(devices="cpu")).why
    client(version="exit 1")
    assert placement.choose(job(devices="cpu")).why == "auto: no Docker engine answers (no words)"


def test_docker_that_was_asked_for_is_never_replaced(client, job):
    client(version="exit 1")
    with pytest.raises(EnvironmentUnavailable, match="no Docker engine answers"):
        placement.choose(job(runtime="docker", devices="cpu"))


@pytest.fixture
def gpu(monkeypatch):
    """Give this machine a GPU."""
    found = Gpu(0, UUID, "NVIDIA H200", 143771)
    monkeypatch.setattr(placement.devices, "grant", lambda asked: Grant((found,), "auto", strict=asked == "cuda"))


def test_podman_has_no_gpus_and_says_so(client, job, gpu):
    client(**server(name="Podman DockerEngine", version="4.3.1"), image=f"echo '{labels()}'")
    placed = placement.choose(job())
    assert (placed.runtime.name, placed.devices) == ("venv", "cuda NVIDIA H200")
    assert placed.why == "auto: Podman 4.3.1 ignores requests for GPUs, which virtual environments can have"
    placed = placement.choose(job(runtime="docker"))
    assert (placed.runtime.name, placed.devices) == ("docker", "cpu (Podman 4.3.1 ignores requests for GPUs)")
    assert placed.flags("tf-cuda") == ["cpu_fallback"]
    with pytest.raises(EnvironmentUnavailable, match=r"Podman 4\.3\.1 ignores requests for GPUs; use Docker"):
        placement.choose(job(devices="cuda", runtime="docker"))


def test_a_gpu_asks_for_the_image_of_its_variant(client, job, gpu):
    client(**server(), image=f"echo '{labels('cuda')}'")
    placed = placement.choose(job())
    assert (placed.runtime.name, placed.devices) == ("docker", "cuda NVIDIA H200")
    assert placed.device("tf-cuda") == "cuda"
    assert placed.device("legacy-py37") == "cpu"


def test_giving_up_the_last_gpu_is_remembered_in_the_records(job, gpu):
    placed = placement.choose(job(runtime="venv"))
    assert placed.flags("tf-cuda") == []
    assert placed.refuse(UUID, "GPU x: lost", "tf-cuda") is False
    assert (placed.device("tf-cuda"), placed.devices) == ("cpu", "cpu (GPU x: lost)")
    assert placed.flags("tf-cuda") == ["cpu_fallback"] and placed.flags("legacy-py37") == []


LEGACY = """docker: Error response from daemon: OCI runtime create failed: container_linux.go:380: error during hook:
nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file: no such file or directory: unknown.
"""  # noqa: E501 - as NVIDIA's hook says it
VENDOR = "docker: Error response from daemon: failed to discover GPU vendor from CDI: no known GPU vendor found\n"


@pytest.mark.parametrize(("text", "code"), [(LEGACY, 127), (LEGACY, 125), (VENDOR, 125), (VENDOR, 126)])
def test_a_refused_gpu_is_known_by_any_line_and_code(client, tmp_path, text, code):
    client(inspect="exit 1")
    log = tmp_path / "log"
    log.write_text(text)
    problem = DockerRuntime(ENGINE).end("s-0.2", code, log).problem
    assert devices.problem(problem) and len(problem.splitlines()) == 1


def test_an_engine_too_busy_to_remove_is_no_trouble(client, tmp_path):
    client(rm=f"sleep 5; touch {tmp_path}/removed")
    original = docker_client.subprocess.run
    docker_client.subprocess.run = lambda *a, **k: original(*a, **{**k, "timeout": 0.2})
    try:
        docker_client.remove(["x"])
    finally:
        docker_client.subprocess.run = original
    assert not (tmp_path / "removed").exists(), "nobody waited for it"


def test_users_that_are_remapped_are_not(command):
    assert words(command(DockerEngine("Docker", False, False, False, remapped=True)), "--userns") == ["host"]


def test_the_end_of_a_container_is_asked_for_and_cleaned_up(client, tmp_path):
    log = tmp_path / "log"
    log.write_text("docker: Error response from daemon: no space left on device.\n")
    client(inspect="echo true", rm=f'echo "$@" > {tmp_path}/removed')
    runtime = DockerRuntime(ENGINE)
    cause = runtime.end("s-0.2", 137, log)
    assert (cause.out_of_memory, cause.problem) == (True, None)
    assert pathlib.Path(tmp_path, "removed").read_text() == "rm --force --volumes consort-s-0.2\n"
    assert runtime.end("s-0.2", 125, log).problem == "no space left on device"


def test_a_script_sees_the_folder_it_is_called_in_and_no_terminal_in_a_pipe(tmp_path, monkeypatch):
    environment = definitions.find("tf-cuda")
    made = DockerRuntime(ENGINE).script(environment, ["run.py", "--fast"], str(tmp_path))
    assert made.argv[-5:] == ["--entrypoint", "python", "consort/tf-cuda:cpu", "run.py", "--fast"]
    assert words(made, "--workdir") == [str(tmp_path)] and words(made, "--network") == ["none"]
    folder, *others = words(made, "--mount")
    assert folder == f"type=bind,source={tmp_path},target={tmp_path}"
    assert all(mount.endswith("target=/weights,readonly") for mount in others)
    assert "--interactive" in made.argv and "--tty" not in made.argv
    for stream in (docker.sys.stdin, docker.sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert "--tty" in DockerRuntime(ENGINE).script(environment, [], str(tmp_path)).argv
    with pytest.raises(EnvironmentUnavailable, match=r"^/usr would hide a part of the container; .*`runtime: venv`"):
        DockerRuntime(ENGINE).script(environment, [], "/usr")


def test_an_environment_is_at_hand_where_it_is_built_or_its_python_is_found_or_else_its_image(client, monkeypatch):
    environment = definitions.find("tf-cuda")
    found = {"built": True, "python": False}

    def find(version):
        if found["python"]:
            return pathlib.Path("/usr/bin/python")
        raise EnvironmentUnavailable("none")

    def names():
        return [placement.ready(environment, buildable).name for buildable in (False, True)]

    monkeypatch.setattr(placement.interpreters, "find", find)
    monkeypatch.setattr(placement.VenvRuntime, "state", lambda *_: "ready" if found["built"] else "not built")
    client(**server(), image=f"echo '{labels()}'")
    assert names() == ["venv", "venv"]
    found.update(built=False)
    assert names() == ["docker", "docker"]
    found.update(python=True)
    assert names() == ["docker", "venv"]
    found.update(python=False)
    client(**server(), image="exit 1")
    assert names() == ["venv", "venv"], "whose error says what to do"
    client(version="exit 1")
    assert names() == ["venv", "venv"]
