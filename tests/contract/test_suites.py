"""How tests are run: side by side, each with its output in one piece, and without a skip that nobody allowed."""

import os
import subprocess
import sys

import pytest
import skips
import suites

from orchestrator.environments import definitions

SKIPPED = """
import pytest

@pytest.mark.skipif(True, reason="root may write everywhere")
def test_allowed(): pass

def test_here():
    pytest.skip("no GPU today")

def test_fine(): pass
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Return a maker of suites that are a line of Python each."""
    monkeypatch.setattr(suites, "LOGS", tmp_path / "logs")
    return lambda name, line: suites.Suite(name, (sys.executable, "-c", line))


def start(monkeypatch, *groups):
    """Run groups of suites, and return the exit code."""
    names = [f"group{number}" for number in range(len(groups))]
    monkeypatch.setattr(suites, "GROUPS", {name: lambda found=found: found for name, found in zip(names, groups)})
    monkeypatch.setattr(sys, "argv", ["suites.py", *names])
    return suites.main()


def test_every_suite_is_named_with_its_time_and_the_last_line_counts_all(python, monkeypatch, capsys):
    first = [python("one", "print('hidden'); print('3 passed in 0.10s')"), python("two", "print('2 passed in 1.00s')")]
    second = [python("three", "print('SKIPPED [1] why'); print('1 passed, 1 skipped in 61.00s (0:01:01)')")]
    assert start(monkeypatch, first, second) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines if line.startswith("suite: ")} == {"one", "two", "three"}
    assert all(" ok " in line and " s, " in line for line in lines if line.startswith("suite: "))
    assert "hidden" not in lines and "SKIPPED [1] why" in lines
    assert last.startswith("6 passed, 1 skipped in ")


def test_a_suite_that_fails_shows_all_it_printed_and_stops_the_next_group(python, monkeypatch, capsys):
    good = python("good", "print('4 passed in 0.10s')")
    bad = python("bad", "import sys; print('E  why'); sys.exit('1 failed, 2 passed, 1 warning in 0.10s')")
    assert start(monkeypatch, [good, bad], [python("never", "print('9 passed in 0.10s')")]) == 1
    said = capsys.readouterr().out
    assert "E  why\n1 failed, 2 passed, 1 warning in 0.10s\nsuite: bad " in said and "FAILED" in said
    assert "never" not in said
    assert said.splitlines()[-1].startswith("1 failed, 6 passed, 1 warnings in ")


def test_a_suite_that_ends_before_its_tests_is_an_error(python, monkeypatch, capsys):
    assert start(monkeypatch, [python("broken", "import nothing_of_that_name")]) == 1
    said = capsys.readouterr().out
    assert "ModuleNotFoundError" in said and said.splitlines()[-1].startswith("1 errors in ")


def test_groups_run_together_where_they_are_joined(python, monkeypatch, capsys):
    monkeypatch.setattr(suites, "GROUPS", {"a": lambda: [python("one", "1")], "b": lambda: [python("two", "2")]})
    assert [suite.name for suite in suites.read_group("b+a")] == ["two", "one"]
    monkeypatch.setattr(sys, "argv", ["suites.py", "c"])
    with pytest.raises(SystemExit):
        suites.main()
    assert "c: the groups are a, b" in capsys.readouterr().err


def test_every_file_of_whole_jobs_is_in_a_suite():
    found = [path for suite in suites.e2e() for path in suite.command if path.startswith("tests/e2e/")]
    files = {f"tests/e2e/{path.name}" for path in (suites.HERE / "e2e").glob("test_*.py")}
    assert set(found) == files and len(found) == len(files) - 1 + len(definitions.names()), (
        "parity: in each environment"
    )


@pytest.mark.parametrize(("strict", "counts"), [("", "1 passed, 2 skipped"), ("1", "1 failed, 1 passed, 1 skipped")])
def test_a_skip_that_is_not_allowed_is_a_failure_in_ci(strict, counts, tmp_path):
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "skips", "-p", "no:cacheprovider", "."]
    env = {**os.environ, "PYTHONPATH": str(suites.HERE), skips.VARIABLE: strict}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert counts in done.stdout, done.stdout
    assert ("no GPU today; CONSORT_NO_SKIPS is set" in done.stdout) is bool(strict)


def test_a_file_that_is_skipped_as_a_whole_is_a_failure_in_ci(tmp_path):
    (tmp_path / "test_nothing.py").write_text("import pytest\npytest.importorskip('nothing_of_that_name')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "skips", "-p", "no:cacheprovider", "."]
    env = {**os.environ, "PYTHONPATH": str(suites.HERE), skips.VARIABLE: "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode and "1 error" in done.stdout and "does not allow this" in done.stdout
