"""Find a Python X.Y on this machine that really runs.

A name on PATH proves nothing: the shims of pyenv answer to every version and then refuse. Each candidate
is therefore started once, and asked for its version and for what building a venv takes.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import typing as tp
from pathlib import Path

from orchestrator.errors import EnvironmentUnavailable

# pyenv versions before 2.3 do not complete `X.Y` to its last release
_RELEASES = {"3.7": "3.7.17"}
_TIMEOUT = 20.0  # seconds; a first start from a network file system is slow
# -I: neither the user's site packages nor PYTHON* variables may colour the answer
_PROBE = ("-I", "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])")


def find(version: str, environ: tp.Mapping[str, str] = os.environ) -> Path:
    """Return an interpreter of the version `X.Y` that can build venvs.

    The first that answers is taken: `$CONSORT_PYTHON_X_Y`, this interpreter, pyenv, `pythonX.Y` on PATH,
    conda environments, what uv knows.

    Raises:
        EnvironmentUnavailable: there is none, or the one that the variable names is no such Python.
    """
    variable = "CONSORT_PYTHON_" + version.replace(".", "_")
    override = environ.get(variable)
    if override:
        if not _answers(override, version):
            raise EnvironmentUnavailable(f"{variable}={override} is not a Python {version} with venv: correct it")
        return Path(override)
    for candidate in _candidates(version, environ):
        if candidate.is_file() and _answers(str(candidate), version):
            return candidate
    raise EnvironmentUnavailable(
        f"no Python {version} runs here: `pyenv install {_RELEASES.get(version, version)}`, `conda create -n "
        f"py{version.replace('.', '')} python={version}`, set {variable}, or use `runtime: docker`"
    )


def _candidates(version: str, environ: tp.Mapping[str, str]) -> tp.Iterator[Path]:
    """Yield what might be it, the surest first; slow questions are only asked when the rest has failed."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        # not the venv that the command may run in: an environment must outlive it
        yield Path(sys.base_prefix, "bin", f"python{version}")
        yield Path(sys.executable)
    for folder in _pyenv_folders(environ):
        yield from sorted(folder.glob(f"{version}.*/bin/python"), key=_release, reverse=True)
    for entry in _path(environ):
        yield entry / f"python{version}"
    for folder in _conda_folders(environ):
        yield from sorted(folder.glob("*/bin/python"))
        yield folder.parent / "bin" / "python"
    yield from _asked_uv(version, environ)


def _pyenv_folders(environ: tp.Mapping[str, str]) -> list[Path]:
    roots = [Path(environ["PYENV_ROOT"])] if environ.get("PYENV_ROOT") else []
    roots += [_home(environ) / ".pyenv", *(entry.parent for entry in _path(environ) if entry.name == "shims")]
    return [root / "versions" for root in dict.fromkeys(roots)]


def _conda_folders(environ: tp.Mapping[str, str]) -> list[Path]:
    folders = [Path(folder) for folder in environ.get("CONDA_ENVS_PATH", "").split(os.pathsep) if folder]
    if environ.get("CONDA_EXE"):
        folders.append(Path(environ["CONDA_EXE"]).parent.parent / "envs")
    names = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", ".conda")
    return list(dict.fromkeys([*folders, *(_home(environ) / name / "envs" for name in names)]))


def _asked_uv(version: str, environ: tp.Mapping[str, str]) -> list[Path]:
    uv = shutil.which("uv", path=environ.get("PATH", ""))
    found = _run([uv, "python", "find", "--no-python-downloads", version]) if uv else None
    return [Path(found)] if found else []


def _path(environ: tp.Mapping[str, str]) -> list[Path]:
    return [Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry]


def _home(environ: tp.Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _release(python: Path) -> list[int]:
    """Return `3.7.16` as numbers, for sorting; 3.7.9 is older than 3.7.16."""
    return [int(number) for number in re.findall(r"\d+", python.parent.parent.name)]


@functools.cache
def _answers(python: str, version: str) -> bool:
    return _run([python, *_PROBE]) == version


def _run(command: tp.Sequence[str]) -> str | None:
    """Return what a program prints, or None when it fails or does not come to an end."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
