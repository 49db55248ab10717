"""With CONSORT_NO_SKIPS set, as CI sets it, a skipped test has failed, unless its reason is allowed here.

The hooks take effect by standing in `conftest.py`. Python 3.7 runs this file too.
"""

import os

import pytest

VARIABLE = "CONSORT_NO_SKIPS"
ALLOWED = {  # how a reason begins, and why that test need not run everywhere
    "root may": "permissions do not bind root, which CI may be; a developer is not, and runs it",
    "only root may": "devices and other people's files; where CI is not root, it is where images are tested",
    "CONSORT_FFMPEG names no ffmpeg": "unit tests fetch nothing; tests/e2e runs them with it, and allows no skip",
    "this engine keeps attestations": "a refusal; where images can carry them there is none, as on newer engines",
    "CONSORT_SHARED_AUDIO names no folder": "hostile audio that may not be given away; test_audio.py makes its own",
}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of a test into a failure."""
    _hold((yield).get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """Turn the skip of a whole file into a failure."""
    _hold((yield).get_result())


def _hold(report):
    if os.environ.get(VARIABLE) and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].partition("Skipped: ")[2]
        if not reason.startswith(tuple(ALLOWED)):
            report.outcome = "failed"
            report.longrepr = "{}; {} is set, and tests/skips.py does not allow this".format(reason, VARIABLE)
