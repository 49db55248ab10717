"""What is asked of a Docker engine, and what its answers and its silence mean; engine_server.py plays it."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from orchestrator.environments import docker_client
from orchestrator.environments.docker_client import DockerEngine
from orchestrator.errors import EnvironmentUnavailable


def test_an_engine_is_known_by_what_it_says(engine):
    engine.is_("DockerEngine", "28.2.2", ["name=rootless", "name=selinux"])
    facts = {"memory": 8 << 30, "cpus": 2}
    assert docker_client.find() == DockerEngine("Docker 28.2.2", podman=False, rootless=True, selinux=True, **facts)
    engine.is_("Podman Engine", "4.3.1", ["name=userns"])
    assert docker_client.find() == DockerEngine("Podman 4.3.1", True, False, False, remapped=True, **facts)


def refused():
    with pytest.raises(EnvironmentUnavailable) as caught:
        docker_client.find()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_docker_the_way_out_is_said(engine, monkeypatch):
    monkeypatch.setenv("PATH", str(engine.path.parent))
    assert refused() == (
        "a Docker engine answers, but the `docker` command that starts its containers is not installed; "
        "install Docker's client, or use `runtime: venv`"
    )
    engine.path.unlink()
    assert refused() == "docker is not installed; install Docker, or use `runtime: venv`"


def test_an_engine_that_does_not_answer_is_one_line_with_the_reason(engine, tmp_path, monkeypatch):
    engine.seconds = 5
    monkeypatch.setattr(docker_client, "_TIMEOUT", 0.1)
    assert f"({engine.address}: no answer within 0 s); start it, or use `runtime: venv`" in refused()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert f"no Docker engine answers (unix://{tmp_path}/none: no such socket); start it" in refused()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert "(tcp://127.0.0.1:9: Connection refused)" in refused()
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@elsewhere")
    assert "an engine elsewhere does not see the folders of this machine" in refused()


@pytest.mark.parametrize(("version", "old"), [("19.03.15", True), ("20.10.24+dfsg1", False), ("9.1", True), ("", True)])
def test_an_engine_that_cannot_build_the_images_is_named(engine, version, old):
    engine.is_("DockerEngine", version)
    if old:
        assert refused() == f"Docker {version} is too old, 20.10 is needed; update it, or use `runtime: venv`"
    else:
        assert docker_client.find().name == f"Docker {version}"


def test_a_socket_that_is_not_the_users_says_whose_it_is(engine, monkeypatch):
    engine.refusals["GET", "/version"] = (500, "permission denied")
    assert "let your user use it (group `docker`)" in refused()


def test_what_the_engine_says_of_a_refusal_is_what_is_said(engine):
    engine.has("x", {})
    engine.refusals["DELETE", "/images/x"] = (409, "conflict: image is being used by a container\nand more.")
    with pytest.raises(EnvironmentUnavailable, match=r"^docker: conflict: image is being used by a container$"):
        docker_client.remove_image("x")
    docker_client.remove_image("y")  # is gone already
    engine.refusals["GET", "/images/x/json"] = (500, "layer is broken")
    with pytest.raises(EnvironmentUnavailable, match="layer is broken"):
        docker_client.image("x")


@pytest.mark.parametrize("chosen_by", ["variable", "use"])
def test_the_context_of_the_command_line_is_followed(engine, tmp_path, monkeypatch, chosen_by):
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"mine").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    about = {"Name": "mine", "Metadata": {}, "Endpoints": {"docker": {"Host": engine.address}}}
    meta.write_text(json.dumps(about))
    (tmp_path / "config.json").write_text('{"currentContext": "mine"}' if chosen_by == "use" else "{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST")
    if chosen_by == "variable":
        monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert docker_client.find().name == "Docker 28.2.2"
    meta.write_text("{")
    assert "(context mine: " in refused() or "(context in use: " in refused()
    meta.unlink()
    assert "see `docker context ls`" in refused()


def test_nothing_imports_the_sdk_where_there_is_no_engine(tmp_path):
    code = (
        "import sys; from orchestrator.job import spec; from orchestrator.running import placement\n"
        f"job = spec.check({{'audio': {str(tmp_path)!r}, 'output': {str(tmp_path / 'out')!r}, 'models': ['crepe']}})\n"
        "print(placement.choose(job).why); assert 'docker' not in sys.modules"
    )
    variables = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none", "PYTHONPATH": ".:images"}
    said = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert "no such socket" in said.stdout or "docker is not installed" in said.stdout


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("docker: Error response from daemon: no such image.\nSee 'docker run --help'.\n", "no such image"),
        ("worker line\ndocker: Error response from daemon: could not select device driver\n\nRun 'docker run --help'\n",
         "could not select device driver"),
        ('TensorFlow error: none\n10:03 INFO b.wav\ntime="2026-11-28T03:13:24Z" level=error msg="error waiting: EOF"\n',
         "error waiting: EOF"),
        ("", "no words"),
    ],
)  # fmt: skip
def test_the_reason_is_taken_out_of_dockers_words(text, line):
    assert docker_client.reason(text) == line


def test_an_engine_too_busy_to_remove_is_no_trouble(engine, monkeypatch):
    engine.containers = {"x": {}, "y": {}}
    engine.refusals["DELETE", "/containers/x"] = (409, "removal of container x is already in progress")
    docker_client.remove(["x", "gone", "y"])
    assert list(engine.containers) == ["x"]
    assert ("/containers/y", {"v": "True", "link": "False", "force": "True"}) in engine.asked("DELETE")
    engine.path.unlink()
    docker_client.remove(["x"])


@pytest.mark.parametrize(
    "tags", [["consort/a:cpu"], ["docker.io/consort/a:cpu"], ["localhost/consort/a:cpu", "<none>:<none>"]]
)
def test_an_image_has_the_same_name_in_every_engine(engine, tags):
    engine.has("x", {"consort.lock": "1"}, tags=tags)
    assert docker_client.image("x").names == ("consort/a:cpu",)
    assert docker_client.images("consort.lock") == [docker_client.image("x")]
    engine.has("x", None, tags=[])
    assert (docker_client.image("x").names, docker_client.image("x").labels) == ((), {})
