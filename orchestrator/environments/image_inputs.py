"""What the build of an image takes from this machine, and leaves outside: certificates, indexes and wheels."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
import platform
import re
import shutil
import tempfile
import threading
import typing as tp
import urllib.parse

from orchestrator.environments import definitions
from orchestrator.environments.definitions import IMAGES, Environment
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights.package_index import PackageIndex
from orchestrator.weights.pip_settings import PipSettings

_LOCAL_WHEELS = IMAGES / "local-wheels"
_WHEELS = threading.Lock()  # builds side by side share one folder of wheels: the last one tidies it
_users: list[str] = []
_placed: list[pathlib.Path] = []
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_VARIABLE = "CONSORT_PIP_CONF"
_HERE = ("localhost", "127.0.0.1", "::1")


def secrets(settings: PipSettings, offers_all: bool) -> tuple[list[str], dict[str, str]]:
    """Return arguments of `docker build` that hand over certificates and indexes, and the variables they need.

    pip's configuration is written anew, as the machine's own may name files that are not inside; and into a
    variable, as addresses may hold credentials.

    Args:
        settings: of this machine's pip.
        offers_all: whether the environment's extra index need not be asked. Not an argument of the build, which
            would do everything again when the answer changes.
    """
    first, *others = [*_web(settings), ""]
    values = {"index-url": first, "extra-index-url": " ".join(others), "trusted-host": " ".join(settings.trusted_hosts)}
    values["# offers-all"] = "yes" if offers_all else "no"
    lines = ["[global]", *(f"{option} = {value.strip()}" for option, value in values.items() if value.strip()), ""]
    words = ["--secret", f"id=pip.conf,env={_VARIABLE}"]
    own = settings.cert or next((os.environ[v] for v in _CERTIFICATES if os.environ.get(v)), None)
    if own and os.path.isfile(own):
        words += ["--secret", f"id=ca.pem,src={own}"]
    return words, {_VARIABLE: "\n".join(lines)}


def _web(settings: PipSettings) -> list[str]:
    """Return the indexes that a build can reach: neither folders nor servers of this machine are inside."""
    parts = {url: urllib.parse.urlsplit(url) for url in settings.index_urls}
    return [url for url, part in parts.items() if part.scheme in ("http", "https") and part.hostname not in _HERE]


def offered(environment: Environment, variant: str, settings: PipSettings) -> bool:
    """Return whether the indexes of this machine have what the environment names another one for."""
    if variant not in environment.spec.extra_index:
        return True
    index = PackageIndex(dataclasses.replace(settings, index_urls=tuple(_web(settings)), find_links=()))
    try:
        return all(index.offers(name, f"{name}-{version}-*") for name, version, _ in _special(environment, variant))
    except EnvironmentUnavailable:  # then a build from what is there already is still possible
        return False


@contextlib.contextmanager
def wheels(environment: Environment, settings: PipSettings) -> tp.Iterator[bool]:
    """Put wheels that this machine has, and no index, where builds find them; yield whether one is of `environment`.

    Those of all environments: what a build sees is the same for each, and what Docker has kept of it still counts.
    What somebody has put there stays.
    """
    others = [definitions.find(name) for name in definitions.names()]
    found = {one.name: list(_local_wheels(one, settings)) for one in (*others, environment)}
    with _WHEELS:
        _users.append(environment.name)
        for wheel in itertools.chain(*found.values()):
            if not (there := _LOCAL_WHEELS / wheel.name).exists():
                _link(wheel, there)
                _placed.append(there)
    try:
        yield bool(found[environment.name])
    finally:
        with _WHEELS:
            _users.remove(environment.name)
            while _placed and not _users:
                _placed.pop().unlink(missing_ok=True)


def _local_wheels(environment: Environment, settings: PipSettings) -> tp.Iterator[pathlib.Path]:
    """Yield the wheels of an environment that lie in folders of this machine, or among those to build with."""
    python = environment.spec.python.replace(".", "")
    for name, version, hashes in dict.fromkeys(
        p for variant in environment.spec.locks for p in _special(environment, variant)
    ):
        pattern = f"{name}-{version}-cp{python}-*linux*_{platform.machine()}.whl"
        there = [*_LOCAL_WHEELS.glob(pattern), PackageIndex(settings).local(name, pattern)]
        yield from (one for one in there[:1] if one and hashlib.sha256(one.read_bytes()).hexdigest() in hashes)


@contextlib.contextmanager
def context(environment: Environment) -> tp.Iterator[pathlib.Path]:
    """Yield the folder that a build sees: the checkout, or for an environment outside of it one put together anew.

    A second folder cannot be named beside the first: BuildKit of Docker 20.10 knows no `--build-context`.
    """
    if not environment.outside:
        yield IMAGES.parent
        return
    with tempfile.TemporaryDirectory(prefix="consort-build-") as made:
        images = pathlib.Path(made, "images")
        own = images / environment.name
        own.mkdir(parents=True)
        _link(IMAGES / "build-tools.lock", images / "build-tools.lock")
        for lock in set(environment.spec.locks.values()):
            _link(environment.folder / lock, own / lock)
        trees = {IMAGES / "worker": images / "worker", _LOCAL_WHEELS: images / "local-wheels"}
        trees.update({environment.folder / module: own / module for module in environment.spec.modules})
        for source, target in trees.items():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), copy_function=_link)
        yield pathlib.Path(made)


def _special(environment: Environment, variant: str) -> list[tuple[str, str, str]]:
    """Return the pins of builds that the public index does not have, with their hashes: `torch==2.13.0+cpu`."""
    pins = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?: +--hash=\S+(?: \\)?\n)+)",
        environment.lock(variant).read_text("utf-8"),
        re.MULTILINE,
    )
    return [pin for pin in pins if "+" in pin[1]]


def _link(source: str | pathlib.Path, target: str | pathlib.Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)  # with its time, by which the next build sees that it is the same
