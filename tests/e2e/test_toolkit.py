"""The prosody toolkit inside its environment."""

from inside import run_tests


def test_the_prosody_toolkit_works_inside_the_torch_environment(tmp_path):
    passed, skipped = run_tests("torch-cuda", tmp_path, "tests/prosody")
    assert passed > 50
    assert skipped == []
