"""The environments' own modules beside the frameworks they are written for, as strict as these allow."""

import os
import subprocess
import sys

import cached
import harness
import pytest

from orchestrator.environments import definitions

# mypy knows no Python before 3.10; what 3.7 lacks is vermin's to find, in `make check`.
LOWEST = (3, 10)


@pytest.mark.parametrize("name", definitions.names())
def test_the_types_of_an_environments_modules_hold(name):
    python = cached.interpreter(name)
    environment = definitions.find(name)
    version = max(LOWEST, tuple(map(int, environment.spec.python.split("."))))
    command = [sys.executable, "-m", "mypy", "--config-file", "tests/types.ini"]
    command += [f"--python-version={version[0]}.{version[1]}", f"--cache-dir=.mypy_cache/{name}"]
    command += [f"--python-executable={python}"]
    for module in environment.spec.modules:
        command += ["--package", module]
    path = os.pathsep.join(["images", str(environment.folder)])
    done = subprocess.run(
        command, cwd=harness.REPOSITORY, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True,
        timeout=900, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
