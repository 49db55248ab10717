"""The worker's own tests under the real Python 3.7, with the environment's own packages."""

from inside import run_tests


def test_the_worker_passes_its_tests_under_the_real_python37(tmp_path):
    passed, skipped = run_tests("legacy-py37", tmp_path, "tests/worker")
    assert passed > 300
    allowed = ("root may", "CONSORT_SHARED_AUDIO")
    assert [reason for reason in skipped if not any(words in reason for words in allowed)] == []
