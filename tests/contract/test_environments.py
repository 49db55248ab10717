"""Every environment of this checkout can be built from what its folder says."""

import re

import pytest

from orchestrator.environments import definitions
from worker import catalog

PIN = re.compile(r"^[A-Za-z0-9_.-]+(\[[a-z0-9,_-]+\])?==[^ ]+( ;.*)? \\$|^[A-Za-z0-9_.-]+==[^ \\]+$")
HASHED = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")

every_environment = pytest.mark.parametrize("name", definitions.names())


def locks(name):
    found = definitions.find(name)
    return [found.lock(variant) for variant in found.spec.locks]


def pins(lock):
    """Return the versions of a lock by package."""
    found = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^ \n]+)", lock.read_text("utf-8"), re.MULTILINE)
    return {package.lower().replace("_", "-"): version for package, version in found}


def test_the_three_environments_are_there():
    assert {"legacy-py37", "tf-cuda", "torch-cuda"} <= set(definitions.names())


@every_environment
def test_its_name_carries_a_hyphen_so_that_nothing_imports_it(name):
    assert "-" in name and not name.isidentifier()


@every_environment
def test_its_declaration_is_complete(name):
    spec = definitions.find(name).spec
    assert re.fullmatch(r"3\.\d+", spec.python)
    assert spec.base_image == f"python:{spec.python}-slim-bookworm"
    assert (spec.gpu, "cuda" in spec.locks) in (("none", False), ("optional", True))
    assert "cpu" in spec.locks and (spec.cuda is None) == (spec.gpu == "none")
    assert "numpy" in spec.probes


@every_environment
def test_its_modules_and_requirements_are_there(name):
    found = definitions.find(name)
    for module in found.spec.modules:
        assert (found.folder / module / "__init__.py").is_file()
    assert list(found.folder.glob("requirements*.in"))


@every_environment
def test_its_locks_pin_and_hash_everything(name):
    for lock in locks(name):
        lines = [x for x in lock.read_text("utf-8").splitlines() if x.strip() and not x.lstrip().startswith("#")]
        wrong = [x for x in lines if not (PIN.match(x) or HASHED.match(x))]
        assert not wrong, f"{lock.name}: {wrong[:3]}"
        assert pins(lock) and sum(map(bool, map(HASHED.match, lines))) >= len(pins(lock))


@every_environment
def test_its_locks_hold_what_the_worker_needs(name):
    for lock in locks(name):
        assert {"numpy", "soundfile", "soxr"} <= pins(lock).keys()


@every_environment
def test_the_cpu_build_brings_no_cuda(name):
    found = pins(definitions.find(name).lock("cpu"))
    assert not [package for package in found if package.startswith(("nvidia-", "triton", "cuda-"))]


@every_environment
def test_the_hash_of_its_code_is_the_same_each_time(name):
    assert definitions.find(name).worker_sha256() == definitions.find(name).worker_sha256()
    assert len(definitions.find(name).lock_sha256("cpu")) == 64


def test_every_environment_is_of_use():
    assert {catalog.find(name).environment for name in catalog.names()} == set(definitions.names())
