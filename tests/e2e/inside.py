"""Run tests inside an environment: with its Python and its packages, as the worker runs there."""

import os
import pathlib
import subprocess
import typing as tp
import xml.etree.ElementTree

import cached
import harness

from orchestrator import files
from orchestrator.environments import definitions

# The environment's own packages come first; the tools fill the gaps behind them.
BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def run_tests(name: str, tmp_path: pathlib.Path, *paths: str) -> tp.Tuple[int, tp.List[str]]:
    """Run tests inside an environment; return how many passed, and why others were skipped."""
    python, environment = cached.interpreter(name), definitions.find(name)
    report = tmp_path / f"{name}.xml"
    variables = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
    variables |= environment.spec.variables | {
        "PYTHONPATH": f"{harness.REPOSITORY / 'images'}:{environment.folder}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "CONSORT_FFMPEG": str(cached.decoder()),
        "CONSORT_WEIGHTS": str(files.cache_root() / "weights"),
    }
    where = str(cached.tools(python, environment.spec.python))
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [str(python), "-c", BOOTSTRAP, where, *options, *paths],
        cwd=harness.REPOSITORY, env=variables, capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    cases = xml.etree.ElementTree.parse(report).getroot().iter("testcase")
    skipped = [[f"{element.get('message')} {element.text}" for element in case.iter("skipped")] for case in cases]
    return sum(not reasons for reasons in skipped), [reason for reasons in skipped for reason in reasons]
