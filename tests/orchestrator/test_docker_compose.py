"""One go of docker compose, its end and what it leaves; a script stands in for the command."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from orchestrator import files
from orchestrator.environments import docker_compose
from orchestrator.environments.definitions import IMAGES
from orchestrator.errors import EnvironmentUnavailable, RunFailed

# What the containers of a go are like: `step status code` a line; `compose up` does what up.sh says.
DOCKER = """#!/bin/bash
here={here}
echo "$@" >>"$here/calls"
case "$*" in
*" up "*) exec bash "$here/up.sh" ;;
*" ps --all --quiet "*) awk -v step="${{@: -1}}" '$1 == step {{ print step }}' "$here/steps" ;;
inspect*) awk -v step="${{@: -1}}" '$1 == step {{ print $2, $3 }}' "$here/steps" ;;
*" down --volumes") echo " Container x  Removed" >&2 ;;
"ps --all --filter"*) cat "$here/projects" ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Return the folder of the stand-in."""
    program = tmp_path / "docker"
    program.write_text(DOCKER.format(here=tmp_path))
    program.chmod(0o755)
    (tmp_path / "up.sh").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ("folders exited 0\nplan exited 0\nreport exited 0", 0),
        ("folders exited 0\nplan exited 0\nreport exited 3", 3),
        ("folders exited 0\nplan exited 2\nreport created 0", 2),
        ("folders exited 1\nplan created 0\nreport created 0", 1),
        ("folders exited 0\nplan exited 2\nreport exited 0", 2),
        ("folders exited 0\nplan exited 0\nreport created 0", None),
        ("folders exited 0\nplan exited 0\nreport running 0", None),
        ("folders exited 0\nplan created 127", None),
        ("", None),
    ],
)
def test_the_code_is_the_reports_or_that_of_a_step_that_kept_it_from_starting(docker, steps, code):
    (docker / "steps").write_text(steps)
    if code is None:
        with pytest.raises(RunFailed, match="before its report"):
            docker_compose.up("p", {}, False)
    else:
        assert docker_compose.up("p", {}, False) == code
    (first, *_, last) = [
        line for line in (docker / "calls").read_text().splitlines() if " down" in line or " up " in line
    ]
    assert first.endswith(" down") and last.endswith(" down"), (
        "what another go has left is removed, and what this one has"
    )


def test_a_second_go_at_the_same_output_is_refused(docker):
    told = pytest.raises(EnvironmentUnavailable, match="another `compose up` works on this output")
    with files.locked(docker / "cache/compose/p.lock", lambda: None), told:
        docker_compose.up("p", {}, False)
    assert not (docker / "calls").exists()


def test_a_container_is_told_no_tokens(docker, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    (docker / "up.sh").write_text(f'env >"{docker}/env"')
    (docker / "steps").write_text("report exited 0")
    assert docker_compose.up("p", {"CONFIG": "x"}, False) == 0
    assert "CONFIG=x" in (docker / "env").read_text() and "secret" not in (docker / "env").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_compose_in_order(docker, number):
    (docker / "up.sh").write_text(f"trap 'exit 0' INT; touch {docker}/begun; while :; do sleep 0.1; done")
    (docker / "steps").write_text("report created 0")
    code = """
    from orchestrator.environments import docker_compose
    raise SystemExit(docker_compose.up("p", {}, False))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (docker / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert error.startswith("stopping: finished arrays are kept")
    assert (docker / "calls").read_text().splitlines()[-1].endswith(" down")


def test_only_projects_of_this_checkout_alone_are_removed(docker, tmp_path):
    mine = IMAGES.parent
    (tmp_path / "link").symlink_to(mine)
    lines = ["mine\t{0}", "linked\t{1}", "both\t{0}", "both\t/elsewhere", "theirs\t/elsewhere", "mine\t"]
    (docker / "projects").write_text("\n".join(line.format(mine, tmp_path / "link") for line in lines))
    assert docker_compose.down() == ["Container x", "Container x"]
    done = [line for line in (docker / "calls").read_text().splitlines() if line.endswith("down --volumes")]
    assert [line.split(" --project-name ")[1].split()[0] for line in done] == ["linked", "mine"]
