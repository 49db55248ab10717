"""Build an environment as a virtual environment: once per lock, whoever asks, whatever dies.

A folder counts only with its marker, which is written last. A builder holds a lock file, so a second one
waits and finds the work done; what a killed builder left has no marker and is removed by the next.
"""

import functools
import json
import os
import pathlib
import shutil
import typing as tp

from orchestrator import files
from orchestrator.environments import interpreters, processes
from orchestrator.environments.definitions import Environment
from orchestrator.environments.leftovers import Leftover, discard, in_cache
from orchestrator.environments.processes import Say
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights.package_index import PackageIndex

_MARKER = "complete.json"
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR")


def folder(environment: Environment, variant: str) -> pathlib.Path:
    """Return where the environment is or would be: the name holds the hash of its lock and Python."""
    digest = environment.lock_sha256(variant)[:12]
    return files.cache_root() / "envs" / f"{environment.name}-{variant}-py{environment.spec.python}-{digest}"


def python(environment: Environment, variant: str) -> pathlib.Path:
    """Return the interpreter of an environment that is built."""
    return folder(environment, variant) / "bin" / "python"


def built(environment: Environment, variant: str) -> bool:
    """Return whether the environment is complete and its interpreter is still there."""
    return (folder(environment, variant) / _MARKER).is_file() and python(environment, variant).exists()


def build(environment: Environment, variant: str, say: Say, log: pathlib.Path | None = None) -> pathlib.Path:
    """Return the interpreter of the environment, after building it if needed.

    Args:
        environment: which.
        variant: cpu or cuda.
        say: gets a line of progress now and then.
        log: file for what pip prints.

    Raises:
        EnvironmentUnavailable: no interpreter, no package, no room; one line that says what to do.
    """
    target = folder(environment, variant)
    if built(environment, variant):
        return python(environment, variant)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, lambda: say("waits for another builder of the same environment")):
            if not built(environment, variant):
                _build(environment, variant, target, say, log or target.parent / f"{target.name}.log")
    except OSError as error:
        why = error.strerror or error
        raise EnvironmentUnavailable(f"{target} cannot be made: {why}; make room, or set CONSORT_CACHE") from error
    return python(environment, variant)


def _build(environment: Environment, variant: str, target: pathlib.Path, say: Say, log: pathlib.Path) -> None:
    base = interpreters.find(environment.spec.python)
    say(f"builds once from its lock with {base}")
    if target.exists():
        shutil.rmtree(target)
    lock = environment.lock(variant)
    pins = sum(1 for line in lock.read_text("utf-8").splitlines() if "==" in line and not line.startswith("#"))
    command = [
        str(target / "bin" / "python"), "-I", "-m", "pip", "install", "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-warn-script-location",
        "--progress-bar", "off", "--no-compile", "-r", str(lock),
    ]  # fmt: skip
    command += _extra_index(environment, variant)
    with files.open_log(log) as out:
        # -I, here and below: the folder that the user stands in may hold a json.py, or a torch/
        _run([str(base), "-I", "-m", "venv", str(target)], environment, out, log, lambda line: None)
        seen: set[str] = set()

        def follow(line: str) -> None:
            if line.startswith(("Collecting ", "Downloading ", "Using cached ")):
                seen.add(line.split("==")[0]) if line.startswith("Collecting ") else None
                say(f"package {len(seen)} of {pins}: {line.split()[1].split('==')[0].rpartition('/')[2]}")
            elif line.startswith("Installing collected"):
                say(f"unpacks {pins} packages")

        _run(command, environment, out, log, follow)
        say("imports its frameworks once")
        imports = "; ".join(f"import {name}" for name in environment.spec.probes)
        _run([command[0], "-I", "-c", imports], environment, out, log, lambda line: None)
    (target / _MARKER).write_text(json.dumps({"lock": environment.lock_sha256(variant)}) + "\n")


def remove(environment: Environment) -> list[pathlib.Path]:
    """Remove every build of an environment, also those of older locks; return what was removed."""
    places = files.cache_root() / "envs"
    found = [path for v in environment.spec.locks for path in places.glob(f"{environment.name}-{v}-py*")]
    gone = sorted(path for path in found if path.is_dir())
    for path in gone:
        with _locked(path, lambda: None):  # the lock's file stays: another process may be waiting for it
            shutil.rmtree(path)
    return gone


def leftovers(named: tp.Container[str]) -> tp.Iterator[Leftover]:
    """Yield logs, builds that were never finished, and all others but those that are named."""
    for path in sorted((files.cache_root() / "envs").glob("*")):
        log = path.suffix == ".log"
        lock = _lock(path.with_suffix("") if log else path)
        with files.taken(lock) as free:
            if not free or not in_cache(path) or str(path) in named or not (log or path.is_dir()):
                continue
            kind, used = "logs of builds" if log else "environments that were never finished", None
            if (path / _MARKER).is_file():  # every start of its interpreter reads pyvenv.cfg
                read = [one.stat().st_atime for one in (path / _MARKER, path / "pyvenv.cfg") if one.exists()]
                kind, used = "environments of other locks", max(read)
            size = path.stat().st_size if log else files.size_of(path)
            yield Leftover(kind, str(path), size, functools.partial(discard, path, lock), used)


def _extra_index(environment: Environment, variant: str) -> list[str]:
    """Add the index that holds a CPU build, only when the configured places do not have it."""
    url = environment.spec.extra_index.get(variant)
    if url is None:
        return []
    for line in environment.lock(variant).read_text("utf-8").splitlines():
        name, _, version = line.partition("==")
        version = version.split()[0] if version else ""
        if "+" in version and not PackageIndex().offers(name.strip(), f"{name.strip()}-{version}-*"):
            return ["--extra-index-url", url]
    return []


def _run(
    command: list[str], environment: Environment, out: tp.TextIO, log: pathlib.Path, follow: tp.Callable[[str], None]
) -> None:
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("PIP_") or k.lower().endswith("_proxy")}
    kept.update(environment.spec.variables, PYTHONNOUSERSITE="1")
    tail = ""

    def read(line: str) -> None:
        nonlocal tail
        said = processes.redact(line).strip()
        follow(said)
        tail = said if said.startswith("ERROR") or not tail.startswith("ERROR") else tail

    if processes.run(command, kept, out, read):
        raise EnvironmentUnavailable(
            f"environment {environment.name} could not be built: {tail or 'pip failed'}; see {log}"
        )


def _locked(target: pathlib.Path, waiting: tp.Callable[[], None]) -> tp.ContextManager[None]:
    def wait() -> None:
        if processes.cancelled.is_set():
            raise EnvironmentUnavailable("interrupted while another process was building; run again")
        waiting()

    return files.locked(_lock(target), wait)


def _lock(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(target.name + ".lock")
