"""Parity with upstream inside the environments: `tests/parity/test_<model>*.py` where that model runs."""

import harness
import pytest
from inside import run_tests

from orchestrator.environments import definitions
from worker import catalog

FILES = sorted((harness.REPOSITORY / "tests" / "parity").glob("test_*.py"))


def find_model(path):
    """Return the model that a file is about: its name may go on with what it is held to."""
    (name,) = [name for name in catalog.names() if name == path.stem.split("_")[1]]
    return name


@pytest.mark.parametrize("environment", definitions.names())
def test_the_numbers_are_upstreams_inside_the_environment(environment, tmp_path):
    paths = [path for path in FILES if catalog.find(find_model(path)).environment == environment]
    passed, skipped = run_tests(environment, tmp_path, *[str(path.relative_to(harness.REPOSITORY)) for path in paths])
    assert passed >= 5
    assert skipped == [], "parity may not be skipped here"
