"""The repository as it is drawn in the design: what stands where, and how large it may be."""

import ast
import collections
import pathlib
import re
import subprocess

import pytest

import orchestrator

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parents[2]
LARGEST = 400  # lines
CODE = {".py", ".sh", ".yaml", ".toml"}


def _tracked():
    """Return the files of the repository; without git, what is not hidden."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        names = [name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        made = re.compile(
            r"(^|/)(\.(git|venv|hypothesis|benchmarks|\w+_cache)|output|build|dist|__pycache__|[^/]*\.egg-info)/"
        )
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not made.search(str(p.relative_to(ROOT)))]
    return sorted(ROOT / name for name in names if (ROOT / name).is_file())


FILES = _tracked()
TEXTS = [path for path in FILES if path.suffix in {*CODE, ".md", ".in", ".lock", ".txt"} or path.name == "Makefile"]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
PAGES = [path for path in FILES if path.suffix == ".md"]


def name(path):
    return str(path.relative_to(ROOT))


def test_the_top_level_is_the_design():
    planned = {"README.md", "Makefile", "pyproject.toml", "CHANGELOG.md", "LICENSE", ".gitignore", ".ci"}
    planned |= {"config", "orchestrator", "images", "tests", "docs", "CONTRIBUTING.md", "NOTICE", "CITATION.cff"}
    later = {"docker-compose.yml", "docker-compose.gpu.yml", ".dockerignore", ".github", "bench"}
    found = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert planned <= found
    assert found <= planned | later


def test_the_worker_and_the_environments_are_in_images():
    found = {path.relative_to(ROOT).parts[1] for path in FILES if path.is_relative_to(ROOT / "images")}
    assert {"worker", "torch-cuda", "tf-cuda", "legacy-py37"} <= found
    beside = {"worker", "lock.sh", "wheels_for.py", "digests.lock", "Dockerfile"}
    assert all("-" in entry or entry in beside for entry in found)


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in CODE], ids=name)
def test_no_file_is_too_long(path):
    assert len(path.read_text("utf-8").splitlines()) <= LARGEST


def test_nothing_is_left_to_be_done():
    words = re.compile(r"(#|<!--|\")\s*(TODO|FIXME|XXX)\b|\b(TODO|FIXME|XXX)[:(]")
    assert not [name(path) for path in TEXTS if words.search(path.read_text("utf-8")) and path != HERE]


def test_nothing_names_this_machine():
    places = re.compile(r"(?<!\w)/work/|/root/|/home/(?!me\b|x\b)[a-z]|/tmp/[a-z]|\b[A-Z]:\\\\")
    found = [
        f"{name(path)}: {match[0]}"
        for path in TEXTS
        for match in places.finditer(path.read_text("utf-8"))
        if path != HERE
    ]
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", t)]
    assert not [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]


def _public(path):
    """Return the public classes and type aliases of a module."""
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        names = [node.name] if isinstance(node, ast.ClassDef) else [t.id for t in targets if isinstance(t, ast.Name)]
        yield from (one for one in names if re.match(r"[A-Z]\w*[a-z]", one))


def test_a_public_class_or_type_has_its_name_for_itself():
    homes = collections.defaultdict(list)
    for path in FILES:
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("orchestrator", "images"):
            for one in _public(path):
                homes[one].append(name(path))
    assert "Extractor" in homes and "Framing" in homes
    assert {one: places for one, places in homes.items() if len(places) > 1} == {}


def test_the_version_is_one():
    version = re.search(r'^version = "(.+)"', PROJECT, re.MULTILINE)[1]
    headings = re.findall(r"^## \[?v?(\d[^\s\]]*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == version == orchestrator.__version__


def test_all_packages_are_listed_for_installation():
    listed = set(re.findall(r'"(.+)"', re.search(r"^packages = \[(.+?)\]", PROJECT, re.MULTILINE | re.DOTALL)[1]))
    inits = [p.parent for p in FILES if p.name == "__init__.py"]
    found = {name(p).replace("/", ".") for p in inits if p.is_relative_to(ROOT / "orchestrator")}
    worker = ROOT / "images" / "worker"
    found |= {str(p.relative_to(ROOT / "images")).replace("/", ".") for p in inits if p.is_relative_to(worker)}
    assert found == listed


def test_every_job_in_config_is_a_job():
    from orchestrator.job import reading, spec

    jobs = [path for path in FILES if path.parent == ROOT / "config"]
    assert jobs
    for path in jobs:
        job = reading.read(str(path))
        assert job.audio == spec.SYNTHETIC or pathlib.Path(job.audio).exists()
        assert pathlib.Path(job.output).is_relative_to(ROOT)
