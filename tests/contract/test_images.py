"""Dockerfiles and compose say what the environments say, with what every BuildKit can do. No engine is asked."""

import re
import shlex

import pytest
import yaml

from orchestrator.environments import composition, definitions, images
from orchestrator.running.runtimes.base import THREADS
from orchestrator.weights import ffmpeg

ROOT = definitions.IMAGES.parent
HOST = ROOT / "orchestrator" / "Dockerfile"
WORKERS = definitions.IMAGES / "Dockerfile"  # of all environments
DOCKERFILES = [WORKERS, HOST]
LATER = {"VARIANT", "VERSION", "REVISION"}  # arguments that are others at every build
EVERYWHERE = {
    "PYTHONPATH": "/opt/consort",
    "CONSORT_MODULES": "${MODULES}",
    "PYTHONNOUSERSITE": "1",
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


def last_stage(found):
    return found[max(n for n, (word, _) in enumerate(found) if word == "FROM") :]


def rests(found, word):
    return [rest for each, rest in found if each == word]


def arguments(found):
    return {key: value.strip('"') for key, _, value in (rest.partition("=") for rest in rests(found, "ARG"))}


def given(found):
    """Return the arguments that have no value of their own."""
    return {key for key, value in arguments(found).items() if not value} | {"LOCK", "VARIANT", "BASE_IMAGE"}


def variables(found):
    return dict(pair.split("=", 1) for rest in rests(found, "ENV") for pair in shlex.split(rest))


@every_environment
def test_it_is_told_all_that_differs_between_environments(name):
    environment = definitions.find(name)
    for variant in environment.spec.locks:
        made = images.definition(environment, variant)
        told = made.arguments
        assert told.keys() | made.variables.keys() == given(instructions(WORKERS)) | {"TOOLS_IMAGE"}
        assert (definitions.IMAGES / told["ENVIRONMENT"] / told["LOCK"]).read_bytes()
        lines = [line.split("=", 1) for line in told["VARIABLES"].splitlines()]
        assert dict(lines) == environment.spec.variables


def test_it_names_no_environment():
    text = WORKERS.read_text("utf-8")
    modules = [module for name in definitions.names() for module in definitions.find(name).spec.modules]
    assert not [own for own in (*definitions.names(), *modules) if own in text]


def test_its_variables_are_those_of_every_environment():
    assert variables(instructions(WORKERS)) == EVERYWHERE


@every_dockerfile
def test_its_labels_are_those_of_the_open_containers_initiative(path):
    found = " ".join(rests(instructions(path), "LABEL"))
    labels = dict(pair.split("=", 1) for pair in shlex.split(found))
    version = {"version": "${VERSION}", "revision": "${REVISION}", "licenses": "MIT"}
    for name, value in version.items():
        assert labels[f"org.opencontainers.image.{name}"] == value
    assert labels["org.opencontainers.image.title"].startswith("Consort: ")
    assert labels["consort.environment"] in ("orchestrator", "${ENVIRONMENT}"), "by which `consort clean` knows its own"


def test_code_comes_after_all_that_is_installed():
    found = last_stage(instructions(WORKERS))
    install = max(n for n, (word, rest) in enumerate(found) if word == "RUN" and "uv pip install" in rest)
    (code,) = (n for n, line in enumerate(found) if line == ("COPY", "--from=code /code /opt/consort"))
    assert code > install
    compiled = max(n for n, (word, rest) in enumerate(found) if word == "RUN" and "compileall" in rest)
    assert compiled > code
    assert not [word for word, _ in found[compiled + 1 :] if word not in ("ARG", "LABEL", "USER", "ENTRYPOINT")]


def test_what_changes_with_every_build_stands_below_all_that_takes_time():
    found = instructions(WORKERS)
    first = min(n for n, (word, rest) in enumerate(found) if word == "ARG" and rest.partition("=")[0] in LATER)
    assert not {word for word, _ in found[first:]} & {"RUN", "COPY", "FROM", "ENV"}


@every_dockerfile
def test_it_needs_no_registry_but_for_its_base(path):
    assert not re.search(r"^#\s*syntax", path.read_text("utf-8"), re.MULTILINE)
    assert set(rests(instructions(path), "FROM")) <= {
        "${BASE_IMAGE}",
        "${TOOLS_IMAGE} AS tools",
        "${TOOLS_IMAGE} AS code",
        "${BASE_IMAGE} AS code",
    }


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


def test_its_ffmpeg_is_the_pinned_one():
    found = instructions(WORKERS)
    pinned = [ffmpeg.checkpoint("Linux", machine) for machine in ("x86_64", "aarch64")]
    assert arguments(found)["FFMPEG_SHA256"].split("|") == [one.sha256 for one in pinned]
    (tools,) = (run for run in rests(found, "RUN") if "--target /tools" in run)
    assert "sha256sum /tools/bin/ffmpeg" in tools and "${FFMPEG_SHA256}" in tools
    assert "/tools/bin/ffmpeg /usr/local/bin/ffmpeg" in "".join(rests(found, "COPY"))
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


@pytest.mark.parametrize("name", [composition.BASE, composition.GPU])
def test_the_files_of_compose_are_written_from_the_environments(name):
    assert (ROOT / name).read_text("utf-8") == composition.texts()[name], "run `consort compose write`"


def test_a_build_of_compose_is_one_of_ours():
    text = yaml.safe_load(composition.texts()[composition.BASE])
    ours = {
        definitions.find(n).spec.service: images.definition(definitions.find(n), "cpu") for n in definitions.names()
    }
    for name, made in {"folders": images.HOST, **ours}.items():
        service = text["services"][name]
        assert (service["image"], service["pull_policy"]) == (made.tag, "build")
        build = service["build"]
        assert (build["context"], build["dockerfile"], tuple(build["secrets"])) == (
            ".",
            made.dockerfile,
            images.SECRETS,
        )
        named = {key: f"${{{variable}:-{default}}}" for key, (variable, default) in made.variables.items()}
        assert build["args"] == {**{k: v for k, v in made.arguments.items() if v}, **named}
    assert set(text["secrets"]) == set(images.SECRETS)


def test_no_service_of_compose_asks_a_registry_or_leaves_a_network():
    services = yaml.safe_load(composition.texts()[composition.BASE])["services"]
    assert {service["pull_policy"] for service in services.values()} == {"build", "never"}
    assert {
        name: service["network_mode"] for name, service in services.items() if service["network_mode"] != "none"
    } == {"plan": "bridge"}


def test_compose_gives_gpus_to_all_that_can_use_one_in_turn():
    services = yaml.safe_load(composition.texts()[composition.GPU])["services"]
    able = [found for name in definitions.names() if "cuda" in (found := definitions.find(name)).spec.locks]
    assert list(services) == ["plan", *(environment.spec.service for environment in able)]
    for number, environment in enumerate(able):
        service = services[environment.spec.service]
        assert service["image"] == images.tag(environment, "cuda")
        cpu, cuda = (images.definition(environment, variant).arguments for variant in ("cpu", "cuda"))
        assert {**cpu, **service["build"]["args"]} == cuda
        assert list(service.get("depends_on", {})) == [one.spec.service for one in able[:number]][-1:]


def test_workers_have_one_thread_in_compose_as_anywhere():
    variables = yaml.safe_load(composition.texts()[composition.BASE])["x-variables"]
    assert {name: variables.get(name) for name in THREADS} == THREADS
