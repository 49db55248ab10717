"""The worker's own tests under the real Python 3.7, and parity with upstream inside the environments."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import xml.etree.ElementTree

import harness
import pytest

from orchestrator.environments import definitions, venvs
from orchestrator.files import cache_root
from orchestrator.weights import ffmpeg
from orchestrator.weights.store import Weights
from worker import catalog

# The environment's own packages come first; the tools fill the gaps behind them.
BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def weights() -> pathlib.Path:
    """Fetch every checkpoint that parity compares, and the decoder; return its path."""
    done = harness.consort("weights", "pull", "musicnn", "crepe", "madmom", "ffmpeg", timeout=900)
    assert done.returncode == 0, done.stderr
    variants = [("musicnn", "checkpoint", name) for name in ("MSD_musicnn", "MTT_vgg", "MSD_vgg")]
    for name, key, value in [*variants, ("crepe", "model_capacity", "tiny")]:
        Weights().pull(catalog.build(name, {key: value}).checkpoints())
    return Weights().path(ffmpeg.checkpoint())


def interpreter(name: str) -> pathlib.Path:
    """Return the interpreter of an environment, which is built if needed."""
    done = harness.consort("envs", "build", name, timeout=1500)
    assert done.returncode == 0, done.stderr
    return venvs.python(definitions.find(name), "cpu")


def tools(python: pathlib.Path, version: str) -> pathlib.Path:
    """Return a folder with pytest for an interpreter, installed once from the lock."""
    lock = harness.REPOSITORY / "tests" / f"requirements{'-py37' if version == '3.7' else ''}.lock"
    folder = cache_root() / "tools" / f"py{version}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        command = [*pip, "--only-binary", ":all:", "--target", partial, "-r", lock]
        subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL, timeout=600)
        try:
            partial.rename(folder)
        except OSError:  # another was quicker
            shutil.rmtree(partial)
    return folder


def run_tests(name: str, tmp_path: pathlib.Path, decoder: pathlib.Path, *paths: str) -> tuple[int, list[str]]:
    """Run tests inside an environment; return how many passed, and why others were skipped."""
    python, environment = interpreter(name), definitions.find(name)
    report = tmp_path / f"{name}.xml"
    variables = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
    variables |= environment.spec.variables | {
        "PYTHONPATH": f"{harness.REPOSITORY / 'images'}:{environment.folder}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "CONSORT_FFMPEG": str(decoder),
        "CONSORT_WEIGHTS": str(cache_root() / "weights"),
    }
    where = str(tools(python, environment.spec.python))
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [str(python), "-c", BOOTSTRAP, where, *options, *paths],
        cwd=harness.REPOSITORY, env=variables, capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    cases = xml.etree.ElementTree.parse(report).getroot().iter("testcase")
    skipped = [[f"{element.get('message')} {element.text}" for element in case.iter("skipped")] for case in cases]
    return sum(not reasons for reasons in skipped), [reason for reasons in skipped for reason in reasons]


def test_the_worker_passes_its_tests_under_the_real_python37(weights, tmp_path):
    passed, skipped = run_tests("legacy-py37", tmp_path, weights, "tests/worker")
    assert passed > 300
    allowed = ("root may", "CONSORT_SHARED_AUDIO")
    assert [reason for reason in skipped if not any(words in reason for words in allowed)] == []


@pytest.mark.parametrize(
    ("environment", "models"),
    [
        ("legacy-py37", ["musicnn", "musicnn_big"]),
        ("tf-cuda", ["crepe", "crepe_reference", "madmom", "openl3"]),
        ("torch-cuda", ["encodec", "encodec_fragments", "encodecmae", "mert", "prosody"]),
    ],
)
def test_the_numbers_are_upstreams_inside_the_environment(environment, models, weights, tmp_path):
    passed, skipped = run_tests(environment, tmp_path, weights, *[f"tests/parity/test_{model}.py" for model in models])
    assert passed >= 5
    assert skipped == [], "parity may not be skipped here"


def test_the_prosody_toolkit_works_inside_the_torch_environment(weights, tmp_path):
    passed, skipped = run_tests("torch-cuda", tmp_path, weights, "tests/prosody")
    assert passed > 50
    assert skipped == []
