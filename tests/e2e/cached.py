"""What tests share on one machine: made by the first that asks, and kept in the cache for all others."""

import functools
import hashlib
import pathlib
import shutil
import subprocess
import typing as tp

import harness

from orchestrator import files
from orchestrator.environments import definitions, venvs
from orchestrator.weights import ffmpeg
from orchestrator.weights.store import Weights
from worker import catalog

MAKER = harness.REPOSITORY / "tests" / "checkpoints" / "make.py"
TINY = {"torch-cuda": ("encodec_24khz", "encodec_48khz", "mert_95m", "encodecmae_base"), "tf-cuda": ("openl3",)}


def once(name: str, source: bytes, make: tp.Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Return a folder that is made once from a source, whoever asks and whatever dies."""
    folder = files.cache_root() / "tools" / f"{name}-{hashlib.sha256(source).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(folder.with_name(f"{folder.name}.lock"), lambda: None):
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(folder)
    return folder


def interpreter(name: str) -> pathlib.Path:
    """Return the interpreter of an environment, which is built if needed."""
    done = harness.consort("envs", "build", name, timeout=1500)
    assert done.returncode == 0, done.stderr
    return venvs.python(definitions.find(name), "cpu")


def tools(python: pathlib.Path, version: str) -> pathlib.Path:
    """Return a folder with pytest for an interpreter, installed from the lock."""
    lock = harness.REPOSITORY / "tests" / f"requirements{'-py37' if version == '3.7' else ''}.lock"

    def install(folder: pathlib.Path) -> None:
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        command = [*pip, "--only-binary", ":all:", "--target", folder, "-r", lock]
        subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL, timeout=600)

    return once(f"py{version}", lock.read_bytes(), install)


def checkpoints() -> pathlib.Path:
    """Return the folder of tiny checkpoints, by the names that `make.py` gives them."""

    def make(folder: pathlib.Path) -> None:
        for environment, names in TINY.items():
            done = harness.consort("python", environment, MAKER, folder, *names, timeout=1500)
            assert done.returncode == 0, done.stderr

    makers = sorted(MAKER.parent.glob("*.py"))
    return once("checkpoints", b"".join(path.read_bytes() for path in makers), make)


@functools.cache
def decoder() -> pathlib.Path:
    """Fetch every checkpoint that parity compares, and the decoder; return its path."""
    done = harness.consort("weights", "pull", "musicnn", "crepe", "madmom", "ffmpeg", timeout=900)
    assert done.returncode == 0, done.stderr
    variants = [("musicnn", "checkpoint", name) for name in ("MSD_musicnn", "MTT_vgg", "MSD_vgg")]
    for name, key, value in [*variants, ("crepe", "model_capacity", "tiny")]:
        Weights().pull(catalog.build(name, {key: value}).checkpoints())
    return Weights().path(ffmpeg.checkpoint())
