"""Dockerfiles say what the environments say, in one shape, with what every BuildKit can do. No engine is asked."""

import re
import shlex

import pytest

from orchestrator.environments import definitions, images
from orchestrator.weights import ffmpeg

ROOT = definitions.IMAGES.parent
HOST = ROOT / "orchestrator" / "Dockerfile"
DOCKERFILES = [*(definitions.IMAGES / name / "Dockerfile" for name in definitions.names()), HOST]
LATER = {"VARIANT", "LOCK_SHA256", "WORKER_SHA256"}  # arguments that are others at every build
EVERYWHERE = {
    "PYTHONPATH": "/opt/consort",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
    "USER": "worker",
    "CONSORT_FFMPEG": "/usr/local/bin/ffmpeg",
}

every_environment = pytest.mark.parametrize("name", definitions.names())
every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


def instructions(path):
    """Return [(word, rest)] of a Dockerfile, continued lines joined, comments left out."""
    lines = [x for x in path.read_text("utf-8").splitlines() if not x.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def of(name):
    return instructions(definitions.IMAGES / name / "Dockerfile")


def rests(found, word):
    return [rest for each, rest in found if each == word]


def arguments(found):
    return {key: value.strip('"') for key, _, value in (rest.partition("=") for rest in rests(found, "ARG"))}


def variables(found):
    return dict(pair.split("=", 1) for rest in rests(found, "ENV") for pair in shlex.split(rest))


@every_environment
def test_its_arguments_are_those_of_the_declaration(name):
    spec, found = definitions.find(name).spec, arguments(of(name))
    assert found["BASE_IMAGE"] == spec.base_image
    assert found["LOCK"] == spec.locks["cpu"]
    assert found["EXTRA_INDEX"] == spec.extra_index.get("cpu", "")
    assert found.keys() >= LATER


@every_environment
def test_its_variables_are_those_of_the_declaration(name):
    spec = definitions.find(name).spec
    assert variables(of(name)) == {**spec.variables, **EVERYWHERE, "CONSORT_MODULES": " ".join(spec.modules)}


@every_environment
def test_its_labels_are_those_that_are_asked_for(name):
    labels = dict(pair.split("=", 1) for rest in rests(of(name), "LABEL") for pair in rest.split())
    hashes = {"consort.lock": "${LOCK_SHA256}", "consort.worker": "${WORKER_SHA256}"}
    assert labels == {"consort.environment": name, "consort.variant": "${VARIANT}", **hashes}


@every_environment
def test_code_comes_after_all_that_is_installed(name):
    found = of(name)
    install = max(n for n, (word, rest) in enumerate(found) if word == "RUN" and "uv pip install" in rest)
    code = [n for n, (word, rest) in enumerate(found) if word == "COPY" and rest.split()[1].startswith("/opt/consort/")]
    code = [n for n in code if "requirements.lock" not in found[n][1]]  # by which the worker knows its packages
    copied = {found[n][1].split()[0] for n in code}
    assert copied == {"images/worker", *(f"images/{name}/{one}" for one in definitions.find(name).spec.modules)}
    assert min(code) > install
    compiled = max(n for n, (word, rest) in enumerate(found) if word == "RUN" and "compileall" in rest)
    assert compiled > max(code)
    assert not [word for word, _ in found[compiled + 1 :] if word not in ("ARG", "LABEL", "USER", "ENTRYPOINT")]


@every_environment
def test_what_changes_with_every_build_stands_below_all_that_takes_time(name):
    found = of(name)
    first = min(n for n, (word, rest) in enumerate(found) if word == "ARG" and rest.partition("=")[0] in LATER)
    assert not {word for word, _ in found[first:]} & {"RUN", "COPY", "FROM", "ENV"}


def test_all_environments_have_one_shape():
    shapes = []
    for name in definitions.names():
        spec = definitions.find(name).spec
        found = [line for line in of(name) if line[0] != "ENV"]
        text = "\n".join(f"{word} {rest}" for word, rest in found)
        for own in (name, *spec.modules):
            text = text.replace(own, "OWN")
        text = re.sub(r"(COPY images/OWN/OWN .+\n)\1+", r"\1", text)  # one line per package of its own
        shapes.append(re.sub(r"^ARG (BASE_IMAGE|LOCK|EXTRA_INDEX)=.*", r"ARG \1", text, flags=re.MULTILINE))
    assert set(shapes) == {shapes[0]}


@every_dockerfile
def test_it_needs_no_registry_but_for_its_base(path):
    assert not re.search(r"^#\s*syntax", path.read_text("utf-8"), re.MULTILINE)
    assert set(rests(instructions(path), "FROM")) <= {"${BASE_IMAGE}", "${TOOLS_IMAGE} AS tools"}


@every_dockerfile
def test_it_asks_for_nothing_that_older_engines_lack(path):
    found = instructions(path)
    assert {word for word, _ in found} <= {"ARG", "FROM", "COPY", "RUN", "ENV", "LABEL", "USER", "ENTRYPOINT"}
    flags = {flag for rest in rests(found, "COPY") for flag in re.findall(r"--([\w-]+)", rest)}
    assert flags <= {"from", "chown", "chmod"}
    assert not [rest for rest in rests(found, "RUN") if "<<" in rest]
    kinds = {kind for rest in rests(found, "RUN") for kind in re.findall(r"--mount=type=(\w+)", rest)}
    assert kinds <= {"bind", "cache", "secret"}


@every_dockerfile
def test_it_installs_no_system_packages_and_only_hashed_ones(path):
    runs = rests(instructions(path), "RUN")
    assert not [run for run in runs if re.search(r"\b(apt|apt-get|dpkg|curl|wget)\b", run)]
    installs = [run for run in runs if "pip install" in run]
    assert installs
    assert not [run for run in installs if "--require-hashes" not in run or "--no-deps" not in run]


@every_dockerfile
def test_whatever_uses_the_network_is_told_of_proxies_and_keeps_nothing(path):
    for run in [run for run in rests(instructions(path), "RUN") if "pip install" in run]:
        assert re.findall(r"type=secret,id=([\w.]+)", run) == ["pip.conf", "ca.pem"]
        assert not re.search(r"--mount=\S*required", run)
        assert "--no-cache-dir" in run or "type=cache" in run
        assert not re.search(r"\b(cp|cat|tee)\b[^&|]*/run/secrets", run)


@every_dockerfile
def test_it_does_not_run_as_root(path):
    found = instructions(path)
    assert rests(found, "USER") == ["65534:65534"]
    assert [word for word, _ in found[-2:]] == ["USER", "ENTRYPOINT"]
    module = "orchestrator" if path == HOST else "worker"
    assert rests(found, "ENTRYPOINT") == [f'["python", "-m", "{module}"]']


@every_dockerfile
def test_it_grabs_no_gpu_unasked(path):
    assert "NVIDIA_VISIBLE_DEVICES" not in path.read_text("utf-8")


@every_environment
def test_its_ffmpeg_is_the_pinned_one(name):
    pinned = [ffmpeg.checkpoint("Linux", machine) for machine in ("x86_64", "aarch64")]
    assert arguments(of(name))["FFMPEG_SHA256"].split("|") == [one.sha256 for one in pinned]
    (tools,) = (run for run in rests(of(name), "RUN") if "--target /tools" in run)
    assert "sha256sum /tools/bin/ffmpeg" in tools and "${FFMPEG_SHA256}" in tools
    assert "/tools/bin/ffmpeg /usr/local/bin/ffmpeg" in "".join(rests(of(name), "COPY"))
    lock = (definitions.IMAGES / "build-tools.lock").read_text("utf-8")
    assert all(one.archive_sha256 in lock for one in pinned)
    assert re.search(rf"^{pinned[0].name}=={re.escape(pinned[0].revision)} \\$", lock, re.MULTILINE)


def test_the_context_holds_what_is_copied_and_neither_history_nor_caches():
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    taken = {line[1:] for line in lines if line.startswith("!")}
    copied = [rest.split()[0] for path in DOCKERFILES for rest in rests(instructions(path), "COPY") if "--" not in rest]
    mounted = re.findall(r"type=bind,source=([\w./-]+)", "".join(path.read_text("utf-8") for path in DOCKERFILES))
    assert {source.partition("/")[0] for source in [*copied, *mounted]} <= taken
    assert not taken & {".git", ".venv", ".ci", "tests", "output"}
    assert lines.index("**/__pycache__") > max(lines.index(f"!{one}") for one in taken)


def test_the_folder_of_wheels_is_there_and_empty_for_git():
    assert (definitions.IMAGES / "local-wheels" / ".gitignore").read_text("utf-8").splitlines()[-2:] == [
        "*",
        "!.gitignore",
    ]


def test_the_names_of_images_are_those_of_compose():
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    named = set(re.findall(r"^ +image: (\S+)$", compose, re.MULTILINE))
    assert named == {images.HOST_TAG, *(images.tag(definitions.find(n), "cpu") for n in definitions.names())}
