"""The locks hold what was asked for, with hashes, and nothing of the machine that made them."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted(ROOT.glob("images/*/env.yaml"))
LOCKS = sorted([*ROOT.glob("images/*/*.lock"), ROOT / "orchestrator/requirements.lock", *ROOT.glob("tests/*.lock")])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def source_of(lock: Path) -> Path:
    return lock.with_suffix(".in")


def requirements(path: Path) -> list[str]:
    """Return the lines of a `.in` file and of those that it includes."""
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("-r "):
            lines += requirements(path.parent / line[3:])
        elif line and not line.startswith(("#", "-c ")):
            lines.append(line.partition("#")[0].strip())
    return lines


def pins(lock: Path) -> dict[str, list[str]]:
    """Return the versions of every package; a lock for several Pythons has one per marker."""
    found: dict[str, list[str]] = {}
    for package, version in re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text("utf-8"), re.MULTILINE):
        found.setdefault(package, []).append(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=name)
def test_lock_holds_what_was_asked_for(lock: Path) -> None:
    locked = pins(lock)
    for line in requirements(source_of(lock)):
        package, exact, version = re.sub(r"\[.*?\]|>=.*", "", line).partition("==")
        assert package.lower() in locked, f"{line}: run `make lock`"
        assert not exact or locked[package.lower()] == [version], f"{line}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS, ids=name)
def test_every_pin_has_a_hash_and_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == sum(map(len, pins(lock).values())) > 0
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)
    assert not re.search(r"://|--find-links|--index|--extra-index|^-", text, re.MULTILINE)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=name)
def test_environment_names_what_is_there(path: Path) -> None:
    environment = yaml.safe_load(path.read_text("utf-8"))
    known = {"python", "gpu", "base_image", "locks", "extra_index", "probes", "modules", "variables", "service", "cuda"}
    assert set(environment) <= known
    assert environment["base_image"].startswith(f"python:{environment['python']}-")
    assert environment["gpu"] in ("none", "optional")
    assert ("cuda" in environment["locks"]) == (environment["gpu"] == "optional")
    assert all((path.parent / lock).is_file() for lock in environment["locks"].values())
    assert all(isinstance(value, str) for value in environment["variables"].values())


def test_tools_for_python37_fit_next_to_its_environment() -> None:
    environment = pins(ROOT / "images/legacy-py37/requirements.lock")
    tools = pins(ROOT / "tests/requirements-py37.lock")
    shared = set(environment) & set(tools)
    assert shared
    assert {package: tools[package] for package in shared} == {package: environment[package] for package in shared}
