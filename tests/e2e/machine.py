"""A machine with GPUs that do not exist: what nvidia-smi lists, a driver to load, an environment for them.

The driver is compiled here; it knows the GPUs that the worker was given. The environment's framework is a module that
says what its `env.yaml` gives it as a variable, when it is asked to compute something.
"""

import os
import pathlib
import shutil
import subprocess
import typing as tp

import harness
import pytest
import yaml

UUIDS = ("GPU-11111111-0000-4000-8000-000000000001", "GPU-22222222-0000-4000-8000-000000000002")
# What frameworks say of a GPU that they cannot use; the last is out-of-memory, which breaks nothing.
MESSAGES = (harness.REPOSITORY / "tests/worker/data/gpu_messages.txt").read_text("utf-8").splitlines()
_DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "NVIDIA Test"); return 0; }
int cuDeviceGetUuid_v2(unsigned char *bytes, int device) {
    const char *name = getenv("CUDA_VISIBLE_DEVICES");
    if (!name || strncmp(name, "GPU-", 4)) name = getenv("NVIDIA_VISIBLE_DEVICES");
    if (!name || strncmp(name, "GPU-", 4)) return 100;
    for (int n = 0, at = 4; n < 16; at++)
        if (name[at] != '-') { sscanf(name + at++, "%2hhx", bytes + n++); }
    return 0;
}
"""
_DEVICES = """import os
import sys

def probe():
    if os.environ.get("OWN_GPU_SAYS"):
        raise RuntimeError(os.environ["OWN_GPU_SAYS"])

def empty_cache():
    print("the cache is emptied", file=sys.stderr)
"""


class Machine(tp.NamedTuple):
    """Where its parts are."""

    programs: pathlib.Path
    driver: pathlib.Path
    environment: pathlib.Path

    @property
    def path(self) -> str:
        """Return a PATH on which nvidia-smi lists its GPUs."""
        return f"{self.programs}{os.pathsep}{os.environ['PATH']}"

    def list(self, count: int = 1, driver: str = "580.65.06", capability: str = "9.0") -> None:
        """Let nvidia-smi list so many GPUs."""
        rows = [f"{n}, {uuid}, NVIDIA Test, 81559, {driver}, {capability}" for n, uuid in enumerate(UUIDS[:count])]
        program = self.programs / "nvidia-smi"
        program.write_text("#!/bin/sh\ncat <<'END'\n{}\nEND\n".format("\n".join(rows)))
        program.chmod(0o755)

    def declare(self, says: str = "") -> None:
        """Write the environment's env.yaml; its framework says this of any GPU."""
        declared = {
            "python": "3.11", "gpu": "optional", "base_image": "python:3.11-slim-bookworm", "probes": ["numpy"],
            "locks": {"cpu": "requirements.lock", "cuda": "requirements.lock"}, "modules": ["own_framework"],
            "cuda": {"module": "own_framework.devices", "driver": 580, "sm": [75, 90]},
            "variables": {"LD_LIBRARY_PATH": str(self.driver), "OWN_GPU_SAYS": says},
        }  # fmt: skip
        (self.environment / "env.yaml").write_text(yaml.safe_dump(declared))

    def job(self, output: pathlib.Path, audio: pathlib.Path, *models: tp.Any, **keys: tp.Any) -> pathlib.Path:
        """Write a job of some models in its environment."""
        plugins = [str(harness.PLUGINS), str(self.driver)]  # the latter so that containers see the driver
        return harness.write_job(output, audio, *models, environments=[str(self.environment)], plugins=plugins, **keys)

    def extract(self, job: pathlib.Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a job on it."""
        return harness.consort("extract", job, *arguments, PATH=self.path)


def failing(name: str, at: str, says: str = "", **params: tp.Any) -> tp.Dict[str, tp.Any]:
    """Return the settings of a model that fails on a GPU."""
    return {"name": name, "extractor": "failing:Failing", "params": {"at": at, "says": says, **params}}


def build(folder: pathlib.Path) -> Machine:
    """Return such a machine below a folder, with one GPU, and its environment not built yet."""
    found = Machine(folder / "bin", folder / "driver", folder / "own_gpu")
    compiler = shutil.which("cc") or pytest.skip("no C compiler is here to make a driver with")
    harness.write_environment(found.environment)
    module = found.environment / "own_framework"
    (found.environment / "own_numbers").rename(module)
    (module / "devices.py").write_text(_DEVICES)
    for place in (found.programs, found.driver):
        place.mkdir()
    (folder / "driver.c").write_text(_DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", found.driver / "libcuda.so.1", folder / "driver.c"], check=True)
    found.list()
    found.declare()
    return found
