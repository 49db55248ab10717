"""The host side runs with its own few packages alone, as in the image that plans for docker-compose.yml."""

import subprocess
import sys

INSIDE = ("soundfile", "soxr", "torch", "tensorflow", "keras", "h5py", "scipy", "safetensors", "transformers")

IMPORT_ALL = f"""
import importlib, pkgutil, sys
for name in {INSIDE!r}:
    sys.modules[name] = None  # importing it fails
import orchestrator
for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_no_module_of_the_host_imports_what_only_environments_have():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
