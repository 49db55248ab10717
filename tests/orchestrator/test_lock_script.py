"""images/lock.sh: what it asks of uv, which is a stand-in here, as is the Python that would bring it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# `-m venv FOLDER` puts itself there, twice: as the Python that installs uv, and as uv.
STAND_IN = """#!{python}
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
if words[:2] == ["-m", "venv"]:
    (pathlib.Path(words[2]) / "bin").mkdir()
    for name in ("python", "uv"):
        shutil.copy(__file__, os.path.join(words[2], "bin", name))
elif words[:2] == ["-m", "pip"]:
    pins = pathlib.Path(words[-1]).read_text()
    assert "--require-hashes" in words and pins.startswith("uv==") and "imageio" not in pins, pins
else:
    with open({log!r}, "a") as f:
        print(json.dumps([os.getcwd(), os.environ.get("UV_FIND_LINKS"), words]), file=f)
"""


@pytest.fixture
def lock(tmp_path):
    """Return a function that runs the script of a copy, and returns {lock: (find-links, words)}."""
    tree = tmp_path / "tree"
    (tree / "images").mkdir(parents=True)
    for name in ("lock.sh", "build-tools.lock"):
        shutil.copy(ROOT / "images" / name, tree / "images")
    for name in ("orchestrator", "tests"):
        (tree / name).mkdir()
    stand_in, log = tmp_path / "python", tmp_path / "calls.jsonl"
    stand_in.write_text(STAND_IN.format(python=sys.executable, log=str(log)))
    stand_in.chmod(0o755)

    def run(*words):
        log.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHON": str(stand_in), "UV_FIND_LINKS": "/wheels"}
        subprocess.run(["sh", tree / "images" / "lock.sh", *words], check=True, env=environment, cwd=tmp_path)
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        return {os.path.relpath(os.path.join(here, w[-1]), tree): (links, w) for here, links, w in calls}

    run.tree = tree
    return run


def environment(folder, python, *sources):
    folder.mkdir(parents=True)
    (folder / "env.yaml").write_text(f"# text\npython: {python}   # why\n")
    for name in sources:
        (folder / name).touch()


def test_every_folder_with_requirements_is_locked_for_its_python(lock):
    environment(lock.tree / "images" / "one-env", '"3.7"', "requirements.in")
    environment(
        lock.tree / "images" / "two-env", "'3.11'", "requirements.in", "requirements.cpu.in", "requirements.cuda.in"
    )
    calls = lock("--upgrade")
    own = {name: call for name, call in calls.items() if "-env" in name}
    assert set(own) == {
        "images/one-env/requirements.lock",
        "images/two-env/requirements.cpu.lock",
        "images/two-env/requirements.cuda.lock",
    }
    versions = {name: words[words.index("--python-version") + 1] for name, (_, words) in own.items()}
    assert list(versions.values()) == ["3.7", "3.11", "3.11"]
    assert all("--upgrade" in words and "--generate-hashes" in words for _, words in calls.values())
    assert {name: links for name, (links, _) in own.items() if not links} == {
        "images/two-env/requirements.cuda.lock": ""
    }
    assert {"images/build-tools.lock", "orchestrator/requirements.lock", "tests/requirements-py37.lock"} < set(calls)


def test_a_folder_of_ones_own_is_locked_alone(lock, tmp_path):
    environment(tmp_path / "my env", "3.12", "requirements.in")
    ((name, (_, words)),) = lock("my env", "-P", "numpy").items()
    assert name == "../my env/requirements.lock"
    assert words[words.index("--python-version") + 1] == "3.12" and words[-5:-3] == ["-P", "numpy"]
