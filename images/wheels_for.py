"""Say which pins of the locks have no wheel for another machine: `.venv/bin/python images/wheels_for.py aarch64`.

A pin counts where an index that pip is configured for offers a wheel for that machine, or for all, with one of the
lock's own hashes: nothing else could be installed from it. Nothing is downloaded but the lists of files.
"""

import re
import sys

from orchestrator.environments import definitions
from orchestrator.environments.definitions import Environment
from orchestrator.weights.package_index import PackageIndex

_PIN = re.compile(r"^([\w.-]+)==([^\s;]+).*\\\n((?: +--hash=\S+(?: \\)?\n)+)", re.MULTILINE)
_NEWEST_GLIBC = (2, 36)  # of bookworm, which the base images are


def lacking(environment: Environment, variant: str, machine: str, index: PackageIndex) -> list[str]:
    """Return the pins, `name==version`, of a lock that have no wheel for a machine."""
    pins = _PIN.findall(environment.lock(variant).read_text("utf-8"))
    return [f"{n}=={v}" for n, v, hashes in pins if not _has(n, v, hashes, environment.spec.python, machine, index)]


def _has(name: str, version: str, hashes: str, python: str, machine: str, index: PackageIndex) -> bool:
    own = re.compile(re.sub(r"[-_.]+", "[-_.]+", name) + f"-{re.escape(version)}-", re.IGNORECASE)
    return any(
        own.match(link.filename) and _fits(link.filename, python, machine) and (link.sha256 or "=") in hashes
        for link in index.files(name)
    )


def _fits(filename: str, python: str, machine: str) -> bool:
    """Return whether CPython of that version can use a wheel, on Linux of that machine."""
    if not filename.endswith(".whl"):
        return False
    tags, abi, platforms = filename.removesuffix(".whl").split("-")[-3:]
    own, minor = f"cp{python.replace('.', '')}", int(python.partition(".")[2])
    abi3 = [int(found[1]) for tag in tags.split(".") if (found := re.fullmatch(r"cp3(\d+)", tag))]
    usable = bool({own, "py3", "py2.py3", own.replace("cp", "py")} & {*tags.split("."), tags})
    if not usable and not ("abi3" in abi and abi3 and min(abi3) <= minor):
        return False
    return any(platform == "any" or _runs(platform, machine) for platform in platforms.split("."))


def _runs(platform: str, machine: str) -> bool:
    modern = re.fullmatch(rf"manylinux_(\d+)_(\d+)_{machine}", platform)
    if modern:
        return (int(modern[1]), int(modern[2])) <= _NEWEST_GLIBC
    return platform in (f"linux_{machine}", f"manylinux2014_{machine}")


def main(machine: str) -> None:
    """Print a table of all environments and variants."""
    index = PackageIndex()
    for environment in map(definitions.find, definitions.names()):
        for variant in environment.spec.locks:
            pins = lacking(environment, variant, machine, index)
            sys.stdout.write(f"| {environment.name}, {variant} | {', '.join(f'`{p}`' for p in pins) or 'nothing'} |\n")


if __name__ == "__main__":
    main(sys.argv[1])
