"""Containers without an engine: what is asked of it, and what its answers mean. engine_server.py plays it."""

import csv
import json
import os
import pathlib
import types

import pytest

from orchestrator.environments import definitions, devices
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
def nothing_answers(engine):
    """Take away the socket of the engine."""
    engine.path.unlink()


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


def test_memory_is_that_of_the_job_or_a_share(command):
    limited = command(resources=Resources(memory=1 << 30))
    assert words(limited, "--memory") == words(limited, "--memory-swap") == [str(1 << 30)]
    assert "size=536870912," in words(limited, "--tmpfs")[0], "which is counted in it"
    (share,) = words(command(DockerEngine("Docker", False, False, False, memory=2 << 30)), "--memory")
    assert 1 << 30 <= int(share) <= 2 << 30, "the engine may have less than this machine"


def test_a_worker_can_take_few_processes_files_and_cores(command):
    made = command(DockerEngine("Docker", False, False, False, memory=64 << 30, cpus=64))
    assert words(made, "--pids-limit") == ["512"] and "--cpus" not in made.argv
    assert words(made, "--ulimit") == ["core=0", "nofile=1024:1024"]


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


def build(engine, variant="cpu", lock=None):
    """Let the engine have the image of today, or one of another lock."""
    environment, tag = definitions.find("tf-cuda"), f"consort/tf-cuda:{variant}"
    engine.has(tag, {})
    made_of = {"lock": lock or environment.lock_sha256(variant), "worker": environment.worker_sha256()}
    engine.images[tag]["Id"] += str(lock)
    engine.keeps(tag, "/opt/consort/made-of.json", json.dumps(made_of))


def test_auto_takes_the_engine_only_with_the_images_of_today(engine, job):
    build(engine)
    placed = placement.choose(job(devices="cpu"))
    assert (placed.runtime.name, placed.why) == ("docker", "auto: Docker 28.2.2 answers and the images are there")
    build(engine, lock="old")
    placed = placement.choose(job(devices="cpu"))
    assert placed.runtime.name == "venv"
    assert placed.why.endswith("images are of other code: consort/tf-cuda:cpu; `make images` builds them")
    engine.images.clear()
    assert "not built: consort/tf-cuda:cpu" in placement.choose(job(devices="cpu")).why
    engine.path.unlink()
    assert placement.choose(job(devices="cpu")).why.startswith("auto: no Docker engine answers (unix://")


def made(tmp_path, name, facts):
    folder = tmp_path / "out/.consort/runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("report.json" if "placement" in facts else "plan.json")).write_text(json.dumps(facts))


@pytest.mark.parametrize("facts", [{"runtime": "venv"}, {"placement": {"runtime": "venv"}}], ids=["plan", "report"])
def test_auto_stays_with_what_the_folder_was_made_with(engine, job, tmp_path, facts):
    build(engine)
    made(tmp_path, "20260101-1", {"runtime": "docker"})
    made(tmp_path, "20260102-1", facts)
    made(tmp_path, "20260103-1", {"chosen": 0})
    placed = placement.choose(job(devices="cpu"))
    assert placed.runtime.name == "venv"
    assert placed.why == "auto: the output folder was made with it; `--runtime docker` would serve as well"
    assert placement.choose(job(devices="cpu", runtime="docker")).why == "asked for"


def test_a_folder_made_in_containers_stays_there_while_an_engine_answers(engine, job, tmp_path):
    made(tmp_path, "20260101-1", {"runtime": "docker"})
    build(engine, lock="old")
    placed = placement.choose(job(devices="cpu"))
    assert (placed.runtime.name, placed.why.partition("; ")[2]) == ("docker", "`--runtime venv` would serve as well")
    build(engine)
    assert placement.choose(job(devices="cpu")).why == "auto: Docker 28.2.2 answers and the images are there"
    engine.path.unlink()
    placed = placement.choose(job(devices="cpu"))
    assert placed.runtime.name == "venv"
    assert "; the output folder was made with docker, but no Docker engine answers" in placed.why


def test_docker_that_was_asked_for_is_never_replaced(nothing_answers, job):
    with pytest.raises(EnvironmentUnavailable, match="no Docker engine answers"):
        placement.choose(job(runtime="docker", devices="cpu"))


@pytest.fixture
def gpu(monkeypatch):
    """Give this machine a GPU."""
    found = Gpu(0, UUID, "NVIDIA H200", 143771)
    monkeypatch.setattr(placement.devices, "grant", lambda asked: Grant((found,), "auto", strict=asked == "cuda"))


def test_podman_has_no_gpus_and_says_so(engine, job, gpu):
    engine.is_("Podman Engine", "4.3.1")
    build(engine)
    placed = placement.choose(job())
    assert (placed.runtime.name, placed.devices) == ("venv", "cuda NVIDIA H200")
    assert placed.why == "auto: Podman 4.3.1 ignores requests for GPUs, which virtual environments can have"
    placed = placement.choose(job(runtime="docker"))
    assert (placed.runtime.name, placed.devices) == ("docker", "cpu (Podman 4.3.1 ignores requests for GPUs)")
    assert placed.flags("tf-cuda") == ["cpu_fallback"]
    with pytest.raises(EnvironmentUnavailable, match=r"Podman 4\.3\.1 ignores requests for GPUs; use Docker"):
        placement.choose(job(devices="cuda", runtime="docker"))


def test_a_gpu_asks_for_the_image_of_its_variant(engine, job, gpu):
    build(engine, "cuda")
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
def test_a_refused_gpu_is_known_by_any_line_and_code(engine, tmp_path, text, code):
    log = tmp_path / "log"
    log.write_text(text)
    problem = DockerRuntime(ENGINE).end("s-0.2", code, log).problem
    assert devices.problem(problem) and len(problem.splitlines()) == 1


def test_users_that_are_remapped_are_not(command):
    assert words(command(DockerEngine("Docker", False, False, False, remapped=True)), "--userns") == ["host"]


def test_the_end_of_a_container_is_asked_for_and_cleaned_up(engine, tmp_path):
    log = tmp_path / "log"
    log.write_text("docker: Error response from daemon: no space left on device.\n")
    engine.containers["consort-s-0.2"] = {"State": {"OOMKilled": True}}
    runtime = DockerRuntime(ENGINE)
    cause = runtime.end("s-0.2", 137, log)
    assert (cause.out_of_memory, cause.problem) == (True, None)
    assert cause.limit is not None and cause.limit.endswith("`memory:` sets another limit")
    assert engine.containers == {}
    cause = runtime.end("s-0.2", 125, log)
    assert (cause.out_of_memory, cause.problem) == (False, "no space left on device")


def test_what_an_engine_that_was_away_has_left_is_removed_when_it_is_back(engine, tmp_path):
    log = tmp_path / "log"
    log.write_text("INFO the worker's last word\n")
    engine.containers["consort-s-0.2"] = {"State": {"OOMKilled": False}}
    environment, runtime = definitions.find("tf-cuda"), DockerRuntime(ENGINE)
    elsewhere = engine.path.rename(engine.path.with_name("t"))
    assert runtime.end("s-0.2", 125, log).problem == f"docker: {engine.address}: no such socket"
    assert runtime.outage(environment, "cpu").startswith(f"no Docker engine answers ({engine.address}: no such socket)")
    elsewhere.rename(engine.path)
    words = "image consort/tf-cuda:cpu is not there any more; `make images` builds it"
    assert runtime.outage(environment, "cpu") == words
    assert engine.containers == {}
    build(engine)
    assert runtime.outage(environment, "cpu") is None


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


def test_an_environment_is_at_hand_where_it_is_built_or_its_python_is_found_or_else_its_image(engine, monkeypatch):
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
    build(engine)
    assert names() == ["venv", "venv"]
    found.update(built=False)
    assert names() == ["docker", "docker"]
    found.update(python=True)
    assert names() == ["docker", "venv"]
    found.update(python=False)
    engine.images.clear()
    assert names() == ["venv", "venv"], "whose error says what to do"
    engine.path.unlink()
    assert names() == ["venv", "venv"]
