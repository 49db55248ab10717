"""What docker is told to build, and what is made of its words; the command is a stand-in here."""

import hashlib
import itertools
import json
import os
import sys
import threading
from dataclasses import replace

import pytest
from engine_server import EngineServer

import orchestrator
from orchestrator.environments import definitions, host_side, image_inputs, images, processes
from orchestrator.environments.definitions import Environment, EnvironmentSpec
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights.package_index import Link, PackageIndex
from orchestrator.weights.pip_settings import PipSettings

WHEEL = b"a wheel"
LOCK = f"""six==1.0 \\
    --hash=sha256:{"0" * 64}
torch==2.0+cpu \\
    --hash=sha256:{"1" * 64} \\
    --hash=sha256:{hashlib.sha256(WHEEL).hexdigest()}
    # via -r requirements.in
"""
# Notes each call, and builds with what `build.json` says; questions go to engine_server.py.
DOCKER = """#!{python}
import json, os, pathlib, sys, time
here, words = pathlib.Path({here!r}), sys.argv[1:]
with open(here / "calls.jsonl", "a") as f:
    kept = {{k: v for k, v in os.environ.items() if k in ("DOCKER_BUILDKIT", "CONSORT_PIP_CONF")}}
    print(json.dumps([words, kept, sorted(p.name for p in (here / "wheels").iterdir())]), file=f)
if words[0] == "build":
    build = json.loads((here / "build.json").read_text())
    print(build["says"], flush=True)
    time.sleep(build.get("seconds", 0))
    sys.exit(build.get("code", 0))
"""


class Docker:
    """The stand-in: what it knows and says is set, what it was asked is kept."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "wheels").mkdir(parents=True)
        self.engine = EngineServer()
        self.build("#1 DONE 0.0s")
        script = folder / "docker"
        script.write_text(DOCKER.format(python=sys.executable, here=str(folder)))
        script.chmod(0o755)

    def build(self, says, **more):
        (self.folder / "build.json").write_text(json.dumps({"says": says, **more}))

    def calls(self, *first):
        """Return [(words, variables, wheels in reach)] of the calls that begin with these words."""
        file = self.folder / "calls.jsonl"
        found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [call for call in found if call[0][: len(first)] == list(first)]

    def built(self):
        (call,) = self.calls("build")
        return call


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Return a stand-in for the command, which nothing else on PATH comes before."""
    found = Docker(tmp_path / "docker")
    monkeypatch.setenv("PATH", str(found.folder), prepend=os.pathsep)
    monkeypatch.setattr(processes, "cancelled", threading.Event())
    monkeypatch.setattr(image_inputs, "_LOCAL_WHEELS", found.folder / "wheels")
    for name in (
        "PIP_CERT",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CONSORT_BASE_IMAGE_3_7",
        "CONSORT_BASE_IMAGE_3_11",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", found.engine.address)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    configure(monkeypatch)
    yield found
    found.engine.close()


@pytest.fixture
def environment(tmp_path):
    """Return an environment whose lock pins a wheel that no public index has."""
    folder = tmp_path / "images" / "a-b"
    folder.mkdir(parents=True)
    (folder / "requirements.lock").write_text(LOCK)
    places = {"cpu": "https://extra.example/whl"}
    return Environment(
        "a-b", folder, EnvironmentSpec("3.11", "none", "base", {"cpu": "requirements.lock"}, [], extra_index=places)
    )


def configure(monkeypatch, **settings):
    monkeypatch.setattr(images.pip_settings, "read", lambda: PipSettings(**settings))


def offer(monkeypatch, *filenames):
    monkeypatch.setattr(PackageIndex, "_read_page", lambda self, page: [Link(name, page + name) for name in filenames])


def hashes(environment, variant="cpu", **changes):
    today = {"lock": environment.lock_sha256(variant), "worker": environment.worker_sha256()}
    return json.dumps({**today, **changes})


def know(docker, environment, tags=("consort/other",), **changes):
    """Give the engine the image of an environment, which will be known by its id alone once another is built."""
    docker.engine.has("old", {"consort.environment": environment.name}, tags=list(tags))
    docker.engine.keeps("old", "/opt/consort/made-of.json", hashes(environment, **changes))
    docker.engine.images[images.tag(environment, "cpu")] = docker.engine.images["sha256:old"] = (
        docker.engine.images.pop("old")
    )


def build(environment, log=None):
    said = []
    images.build(environment, "cpu", said.append, log)
    return said


def after(words, flag):
    return [value for each, value in itertools.pairwise(words) if each == flag]


def test_an_image_has_the_name_of_its_environment_and_variant():
    assert images.tag(definitions.find("torch-cuda"), "cuda") == "consort/torch-cuda:cuda"


def test_no_image_is_not_built(docker, environment):
    assert images.state(environment, "cpu") == images.MISSING
    assert images.size(environment, "cpu") is None
    assert images.image_id(environment, "cpu") is None


def test_an_image_of_today_is_ready_and_not_built_again(docker, environment):
    know(docker, environment)
    assert images.state(environment, "cpu") == images.READY
    assert images.size(environment, "cpu") == 7
    assert images.image_id(environment, "cpu") == "sha256:old"
    assert build(environment) == []
    assert not docker.calls("build")


@pytest.mark.parametrize("changes", [{"lock": "0" * 64}, {"worker": "0" * 64}, {"worker": ""}])
def test_an_image_of_another_lock_or_code_is_built_again(docker, environment, changes):
    know(docker, environment, **changes)
    assert images.state(environment, "cpu") == images.OUTDATED
    build(environment)
    assert docker.built()


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "{}"])
def test_an_image_that_does_not_say_what_it_is_made_of_is_of_other_code(docker, environment, text):
    docker.engine.has(images.tag(environment, "cpu"), None)
    if text is not None:
        docker.engine.keeps(images.tag(environment, "cpu"), "/opt/consort/made-of.json", text)
    assert images.state(environment, "cpu") == images.OUTDATED
    assert docker.engine.containers == {}


def test_what_an_image_is_made_of_is_looked_up_once(docker, environment):
    know(docker, environment)
    for _ in range(3):
        assert images.state(environment, "cpu") == images.READY
    assert [path for path, _ in docker.engine.asked("POST")] == ["/containers/create"]
    assert docker.engine.containers == {}


@pytest.mark.parametrize("name", definitions.names())
def test_a_build_is_told_everything(docker, name, monkeypatch):
    monkeypatch.setenv("CONSORT_REVISION", "of this commit")
    environment = definitions.find(name)
    images.build(environment, "cpu", lambda text: None)
    words, variables, _ = docker.built()
    given = dict(word.split("=", 1) for word in after(words, "--build-arg"))
    assert given == {
        "BASE_IMAGE": environment.spec.base_image,
        "ENVIRONMENT": name,
        "LOCK": environment.spec.locks["cpu"],
        "VARIANT": "cpu",
        "EXTRA_INDEX": environment.spec.extra_index.get("cpu", ""),
        "MODULES": " ".join(environment.spec.modules),
        "VARIABLES": "\n".join(f"{key}={value}" for key, value in environment.spec.variables.items()),
        "TOOLS_IMAGE": "python:3.11-slim-bookworm",
        "VERSION": orchestrator.__version__,
        "REVISION": "of this commit",
    }
    assert after(words, "--file") == [str(definitions.IMAGES / "Dockerfile")]
    assert after(words, "--tag") == [f"consort/{name}:cpu"]
    assert words[-1] == str(definitions.IMAGES.parent)
    assert variables["DOCKER_BUILDKIT"] == "1"


def test_one_outside_the_checkout_is_built_from_a_folder_of_what_it_needs(docker, environment):
    (environment.folder / "mine" / "__pycache__").mkdir(parents=True)
    (environment.folder / "mine" / "model.py").touch()
    (environment.folder / "other").touch()
    environment = replace(environment, spec=replace(environment.spec, modules=["mine"]))
    with image_inputs.context(environment) as folder:
        own = {str(path.relative_to(folder)) for path in folder.glob("images/a-b/**/*")}
        assert own == {"images/a-b/requirements.lock", "images/a-b/mine", "images/a-b/mine/model.py"}
        assert {path.name for path in folder.glob("images/*")} == {"a-b", "build-tools.lock", "local-wheels", "worker"}
    assert not folder.exists()
    build(environment)
    context = docker.built()[0][-1]
    assert context not in (str(definitions.IMAGES.parent), str(environment.folder)) and not os.path.exists(context)


def test_a_variant_that_is_not_there_is_refused(docker, environment):
    with pytest.raises(EnvironmentUnavailable, match="no cuda variant; it has cpu"):
        images.build(environment, "cuda", lambda text: None)
    assert not docker.calls()


def test_other_base_images_can_be_named(docker, monkeypatch):
    monkeypatch.setenv("CONSORT_BASE_IMAGE_3_7", "own/python:3.7")
    monkeypatch.setenv("CONSORT_BASE_IMAGE_3_11", "own/python:3.11")
    build(definitions.find("legacy-py37"))
    given = after(docker.built()[0], "--build-arg")
    assert {"BASE_IMAGE=own/python:3.7", "TOOLS_IMAGE=own/python:3.11"} <= set(given)


def test_the_image_of_the_host_is_built_from_the_same_things(docker, monkeypatch):
    monkeypatch.setenv("CONSORT_BASE_IMAGE_3_11", "own/python:3.11")
    images.build_host(lambda text: None)
    words, variables, _ = docker.built()
    assert after(words, "--tag") == [images.HOST_TAG]
    given = dict(word.split("=", 1) for word in after(words, "--build-arg"))
    assert given.keys() == {"BASE_IMAGE", "VERSION", "REVISION"} and given["BASE_IMAGE"] == "own/python:3.11"
    assert after(words, "--secret") == ["id=pip.conf,env=CONSORT_PIP_CONF"]
    assert "index-url" not in variables["CONSORT_PIP_CONF"]


def test_the_image_of_the_host_is_built_again_only_for_other_sources(docker):
    docker.engine.has(images.HOST_TAG, {})
    docker.engine.keeps(images.HOST_TAG, "/opt/consort/made-of.json", json.dumps(host_side.made_of()))
    images.build_host(lambda text: None)
    assert not docker.calls("build"), "a machine without a network has no base image"
    docker.engine.has(images.HOST_TAG, {}, tags=["consort/other"])
    docker.engine.images[images.HOST_TAG]["Id"] = "sha256:other"
    images.build_host(lambda text: None)
    assert docker.built()


def test_certificates_and_indexes_are_handed_over_and_not_told(docker, environment, monkeypatch, tmp_path):
    own = tmp_path / "ca.pem"
    own.touch()
    indexes = ("file:///a", "http://localhost:3141/x", "https://me:secret@one.example/simple", "https://two.example/s")
    configure(monkeypatch, cert=str(own), index_urls=indexes, trusted_hosts=("two.example",))
    offer(monkeypatch)
    build(environment)
    words, variables, _ = docker.built()
    assert after(words, "--secret") == ["id=pip.conf,env=CONSORT_PIP_CONF", f"id=ca.pem,src={own}"]
    assert variables["CONSORT_PIP_CONF"].splitlines() == [
        "[global]",
        "index-url = https://me:secret@one.example/simple",
        "extra-index-url = https://two.example/s",
        "trusted-host = two.example",
        "# offers-all = no",
    ]
    assert "secret@" not in " ".join(words)


def test_certificates_that_are_not_there_are_not_handed_over(docker, environment, monkeypatch, tmp_path):
    configure(monkeypatch, cert=str(tmp_path / "gone.pem"))
    build(environment)
    assert after(docker.built()[0], "--secret") == ["id=pip.conf,env=CONSORT_PIP_CONF"]


@pytest.mark.parametrize(("content", "found"), [(WHEEL, True), (b"another", False)])
def test_a_wheel_of_this_machine_is_there_during_the_build_if_it_is_the_pinned_one(
    docker, environment, monkeypatch, tmp_path, content, found
):
    machine = os.uname().machine
    places = tmp_path / "find-links"
    places.mkdir()
    for name in (f"torch-2.0+cpu-cp311-cp311-manylinux_2_28_{machine}.whl", "torch-2.0+cpu-cp311-cp311-win_amd64.whl"):
        (places / name).write_bytes(content)
    configure(monkeypatch, find_links=(str(places),))
    build(environment)
    _, variables, wheels = docker.built()
    assert wheels == ([f"torch-2.0+cpu-cp311-cp311-manylinux_2_28_{machine}.whl"] if found else [])
    assert ("# offers-all = yes" in variables["CONSORT_PIP_CONF"]) == found
    assert not list((docker.folder / "wheels").iterdir())
    assert len(list(places.iterdir())) == 2


@pytest.mark.parametrize(("version", "answer"), [("2.0+cpu", "yes"), ("2.0", "no")])
def test_the_extra_index_is_not_asked_for_what_the_own_one_has(docker, environment, monkeypatch, version, answer):
    configure(monkeypatch, index_urls=("https://one.example/simple",))
    offer(monkeypatch, f"torch-{version}-cp311-cp311-manylinux_2_28_x86_64.whl")
    build(environment)
    assert f"# offers-all = {answer}" in docker.built()[1]["CONSORT_PIP_CONF"]


def test_progress_is_that_of_the_longest_stage(docker, environment):
    docker.build(
        "#5 [tools 2/3] RUN x\n#6 [stage-1 2/7] COPY y\n#5 [tools 3/3] RUN z\n#7 [stage-1 3/7] RUN w\n#7 1.2 ok"
    )
    expected = ["image: step 2 of 3", "image: step 2 of 7", "image: step 3 of 7"]
    assert build(environment) == ["builds the image consort/a-b:cpu", *expected]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (
            "#9 4.5 error: Request failed after 3 retries\n#9 4.5   cause: Failed to fetch: https://me:pw@x.org/tok/six/\n"
            "#9 4.5   cause: tcp connect error\n#9 4.5   cause: Connection refused\n#9 ERROR: executor failed",
            r"3 retries \(Failed to fetch: https://x.org/...\) \(Connection refused\)$",
        ),
        ("#9 1.2 ERROR: No matching distribution found for six\nfailed to solve: exit code: 1", "No matching .* six"),
        ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", "buildx component is missing"),
        (
            "failed to solve: failed to do request: Head https://hub.example/v2/python/manifests/3.11: no host",
            "CONSORT_BASE_IMAGE_3_11",
        ),
        (
            "failed to solve: failed to do request: Head https://hub.example/v2/x/scanner/manifests/stable-1: no host",
            "CONSORT_SBOM_SCANNER",
        ),
    ],
)
def test_a_build_that_fails_says_why_in_one_line(docker, environment, tmp_path, says, reason):
    docker.build(says, code=1)
    log = tmp_path / "build.log"
    with pytest.raises(EnvironmentUnavailable, match=reason) as caught:
        build(environment)
    assert "\n" not in str(caught.value) and "me:pw" not in str(caught.value)
    with pytest.raises(EnvironmentUnavailable, match=f"see {log}"):
        build(environment, log)
    assert log.read_text() and "me:pw" not in log.read_text()


def test_a_build_can_be_ended(docker, environment):
    docker.build("#1 [1/1] RUN forever", seconds=60)
    threading.Timer(0.5, processes.cancel).start()
    with pytest.raises(EnvironmentUnavailable, match="image a-b could not be built"):
        build(environment)


@pytest.mark.parametrize(("tags", "removed"), [((), ["/images/sha256:old"]), (("mine",), [])])
def test_an_image_that_has_lost_its_name_is_removed(docker, environment, tags, removed):
    know(docker, environment, tags, worker="0" * 64)
    build(environment)
    assert [path for path, _ in docker.engine.asked("DELETE") if path.startswith("/images/")] == removed


def test_those_that_are_there_can_be_removed(docker):
    environment = definitions.find("torch-cuda")
    know(docker, environment, worker="0" * 64)
    assert images.remove(environment) == ["consort/torch-cuda:cpu"]
    assert [path for path, _ in docker.engine.asked("DELETE") if path.startswith("/images/")] == [
        "/images/consort/torch-cuda:cpu"
    ]
