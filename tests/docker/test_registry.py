"""Images in a registry: Debian's `docker-registry` on loopback, which engines ask without certificates."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import urllib.request

import harness
import pytest
from engine import docker
from harness import until

PROGRAM = shutil.which("docker-registry") or "/usr/local/lib/consort-registry/docker-registry"
HOST_BASE = os.environ.get("CONSORT_BASE_IMAGE_3_11", "python:3.11-slim-bookworm")
SMALL, HOST = "consort/small-env:cpu", "consort/orchestrator:latest"
CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry:
    """A registry of this machine; it can be started again where it was."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.folder = f"127.0.0.1:{self.port}/of/consort", folder
        (folder / "config.yml").write_text(CONFIG.format(folder=folder / "data", port=self.port))
        self.start()

    def start(self):
        with open(self.folder / "log", "a") as log:
            command = [PROGRAM, "serve", str(self.folder / "config.yml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.answers)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    def answers(self):
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", self.port)) == 0

    def digest(self, name, label):
        """Return the digest that the registry itself gives a tag."""
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        url = f"http://127.0.0.1:{self.port}/v2/of/consort/{name}/manifests/{label}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=10) as answer:
            return answer.headers["Docker-Content-Digest"]

    def blob(self, digest):
        """Return the file in which it keeps something."""
        kind, _, name = digest.partition(":")
        return self.folder / "data/docker/registry/v2/blobs" / kind / name[:2] / name / "data"


class Checkout:
    """A checkout with one small environment: what is pushed of it is written down there, and nowhere else."""

    def __init__(self, folder):
        ignored = shutil.ignore_patterns("__pycache__", "*-*", "*.whl", "digests.lock", "build")
        shutil.copytree(harness.REPOSITORY / "images", folder / "images", ignore=ignored)
        shutil.copytree(harness.REPOSITORY / "orchestrator", folder / "orchestrator", ignore=ignored)
        for name in ("images/build-tools.lock", ".dockerignore", "pyproject.toml"):
            shutil.copy(harness.REPOSITORY / name, folder / name)
        (folder / "images/local-wheels").mkdir()
        harness.write_environment(folder / "images" / "small-env")
        self.folder, self.digests = folder, folder / "images" / "digests.lock"

    def __call__(self, *words):
        path = f"{self.folder}:{self.folder}/images"
        return harness.consort("envs", *words, cwd=self.folder, timeout=600, PYTHONPATH=path)

    def change(self, pattern, by):
        """Change what the line of the small environment says."""
        lines = self.digests.read_text().splitlines(keepends=True)
        changed = [re.sub(pattern, by, line) if line.startswith("small-env ") else line for line in lines]
        assert changed != lines
        self.digests.write_text("".join(changed))


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    if not pathlib.Path(PROGRAM).exists():
        pytest.skip("no docker-registry; `bash .ci/engine.sh` gets it")
    found = Registry(tmp_path_factory.mktemp("registry"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def host_image():
    """Put the image of the host side, whose name all checkouts share, back at the end."""
    kept = image_id(HOST)
    if kept:
        docker("tag", kept, "kept/orchestrator:before")
    yield
    remove(SMALL, HOST)
    if kept:
        docker("tag", kept, HOST)
        docker("rmi", "kept/orchestrator:before")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, registry, host_image):
    """Return a checkout, the ids of its images, and what its push wrote."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    done = checkout("push", "small-env", "--registry", registry.address)
    assert done.returncode == 3 and f"{SMALL}: not built, and not pushed; `make images` builds it" in done.stderr
    assert not checkout.digests.exists()
    for action in (("build", "--runtime", "docker"), ("push", "--registry", registry.address)):
        done = checkout(*action, "--variant", "cpu")
        assert done.returncode == 0, done.stderr
    return checkout, {name: image_id(name) for name in (SMALL, HOST)}, checkout.digests.read_text()


@pytest.fixture
def checkout(pushed, registry):
    """Return the checkout, with what was pushed and no image on this machine."""
    checkout, _, digests = pushed
    checkout.digests.write_text(digests)
    remove(SMALL, HOST)
    yield checkout
    if registry.process.poll() is not None:
        registry.start()
    named = docker("images", "--digests", "--format", "{{.Repository}}@{{.Digest}}").split()
    assert [name for name in named if name.startswith(registry.address)] == [], "an address has stayed as a name"


def remove(*names):
    subprocess.run(["docker", "rmi", *names], capture_output=True, timeout=60)


def image_id(name):
    return docker("images", "--quiet", "--no-trunc", name)


def lines(done):
    """Return what a command said about the small environment, without the time."""
    return [line.partition(" ")[2] for line in done.stderr.splitlines() if "small-env:cpu" in line]


def send(registry, dockerfile, context, *options):
    """Push an image of somebody else's; return its digest."""
    name = f"{registry.address}/small-env:other"
    built = ["docker", "build", "--quiet", *options, "--tag", name, "--file", "-", context]
    subprocess.run(built, input=dockerfile.encode(), check=True, capture_output=True, timeout=120)
    docker("push", "--quiet", name)
    remove(name)
    return registry.digest("small-env", "other")


def test_a_push_writes_one_line_for_each_image(pushed, registry):
    _, ids, text = pushed
    header, found = text.splitlines()[:2], text.splitlines()[2:]
    assert all(line.startswith("# ") for line in header) and "consort envs push" in header[0]
    fields = {line.split()[0]: line.split()[1:] for line in found}
    assert list(fields) == sorted(fields) == ["orchestrator", "small-env"]
    for name, (variant, architecture, lock, code, digest, place) in fields.items():
        assert (variant, place) == ("cpu" if name == "small-env" else "latest", registry.address)
        assert architecture == docker("version", "--format", "{{.Server.Arch}}")
        inside = docker("run", "--rm", "--entrypoint", "cat", ids[SMALL if name == "small-env" else HOST],
                        "/opt/consort/made-of.json")  # fmt: skip
        assert json.loads(inside) == {"lock": lock, "worker": code}
        assert digest == registry.digest(name, f"{variant}-{lock[:8]}-{code[:8]}")


def test_a_pull_gives_the_same_images_and_takes_none_twice(checkout, registry, pushed):
    done = checkout("pull", "--variant", "cpu")
    assert done.returncode == 0, done.stderr
    assert {name: image_id(name) for name in (SMALL, HOST)} == pushed[1]
    assert f"small-env:cpu: pulls the image {SMALL} from {registry.address}" in lines(done)
    assert lines(done)[-1] == "small-env:cpu: ready, pulled"
    registry.stop()
    again = checkout("pull", "--variant", "cpu")
    assert again.returncode == 0 and lines(again) == ["small-env:cpu: ready"], again.stderr
    listed = checkout("list", "--runtime", "docker")
    assert "ready" in listed.stdout.splitlines()[-1]


def test_a_build_pulls_what_was_pushed(checkout, pushed):
    done = checkout("build", "--runtime", "docker", "--variant", "cpu")
    assert done.returncode == 0, done.stderr
    assert "pulls the image" in lines(done)[0] and "builds" not in done.stderr
    assert {name: image_id(name) for name in (SMALL, HOST)} == pushed[1]


def test_of_another_code_there_is_nothing_to_pull(checkout):
    module = checkout.folder / "images/small-env/own_numbers/__init__.py"
    before = module.read_text()
    module.write_text("GAIN = 4.0\n")
    try:
        done = checkout("pull", "small-env")
        built = checkout("build", "small-env", "--runtime", "docker")
    finally:
        module.write_text(before)
    said = f"{SMALL}: digests.lock names none of today's lock and code; `make images` builds it"
    assert done.returncode == 3 and lines(done) == [said]
    assert built.returncode == 0 and "builds the image" in lines(built)[0], built.stderr
    old = checkout("push", "small-env", "--registry", "127.0.0.1:1/x")
    assert old.returncode == 3 and lines(old) == [f"{SMALL}: of other code, and not pushed; `make images` builds it"]


def refused(checkout, reason):
    """Hold a pull to one line that says why, and to leaving nothing; and a build to going on by itself."""
    done = checkout("pull", "small-env")
    assert done.returncode == 3, done.stderr
    assert re.fullmatch(rf"{SMALL}.*{reason}.*; `make images` builds it", lines(done)[-1]), done.stderr
    assert image_id(SMALL) == ""
    built = checkout("build", "small-env", "--runtime", "docker")
    assert built.returncode == 0, built.stderr
    assert re.search(f"{reason}.*; builds it instead", built.stderr) and "builds the image" in built.stderr


def test_a_digest_that_the_registry_does_not_have_is_refused(checkout):
    checkout.change("sha256:[0-9a-f]{64}", "sha256:" + "1" * 64)
    refused(checkout, "could not be pulled from .*manifest unknown")


def test_what_does_not_match_its_digest_is_refused(checkout, registry):
    digest = re.search(r"^small-env .*(sha256:\S+)", checkout.digests.read_text(), re.MULTILINE)[1]
    other = registry.blob(send(registry, f"FROM {HOST_BASE}\nLABEL other=yes\n", "."))
    blob = registry.blob(digest)
    before = blob.read_bytes()
    blob.write_bytes(other.read_bytes())
    try:
        refused(checkout, "could not be pulled from .*(verification failed|digest)")
    finally:
        blob.write_bytes(before)


def test_an_image_of_another_code_is_refused_and_removed(checkout, registry, tmp_path):
    (tmp_path / "made-of.json").write_text('{"lock": "0", "worker": "0"}')
    dockerfile = f"FROM {SMALL}\nCOPY made-of.json /opt/consort/\n"
    checkout("pull", "small-env")
    digest = send(registry, dockerfile, tmp_path)
    remove(SMALL)
    checkout.change("sha256:[0-9a-f]{64}", digest)
    refused(checkout, "is of another lock or code; it is not used")


def test_an_image_for_another_machine_is_refused_and_removed(checkout, registry, tmp_path):
    _, _, _, lock, code, *_ = checkout.digests.read_text().splitlines()[-1].split()
    (tmp_path / "made-of.json").write_text(json.dumps({"lock": lock, "worker": code}))
    digest = send(registry, "FROM scratch\nCOPY made-of.json /opt/consort/\n", tmp_path, "--platform", "linux/s390x")
    checkout.change("sha256:[0-9a-f]{64}", digest)
    refused(checkout, "is not for .*; it is not used")


def test_a_registry_that_is_away_is_named(checkout, registry):
    registry.stop()
    refused(checkout, f"could not be pulled from {registry.address}: .*connection refused")


def test_what_is_pushed_again_replaces_its_line_alone(checkout, registry):
    assert checkout("pull", "small-env").returncode == 0
    before = checkout.digests.read_text()
    done = checkout("push", "small-env", "--registry", f"127.0.0.1:{registry.port}/elsewhere")
    assert done.returncode == 0, done.stderr
    after = checkout.digests.read_text()
    assert after == re.sub(r"(?m)^(small-env .*)/of/consort$", r"\1/elsewhere", before) != before


def test_attestations_are_refused_where_images_cannot_carry_them(checkout):
    if "containerd" in docker("info", "--format", "{{.DriverStatus}}"):
        pytest.skip("this engine keeps attestations")
    done = checkout("build", "--runtime", "docker", "--attest")
    assert done.returncode == 3 and image_id(SMALL) == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith("consort: attestations ") and "containerd-snapshotter" in said
