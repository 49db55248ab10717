"""Only an interpreter that answers counts, whatever its name promises."""

import sys
from pathlib import Path

import pytest

from orchestrator.environments import interpreters
from orchestrator.errors import EnvironmentUnavailable

HERE = "{}.{}".format(*sys.version_info[:2])


@pytest.fixture(autouse=True)
def forget() -> None:
    interpreters._answers.cache_clear()


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return path


def clean(tmp_path: Path, **variables: object) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "PATH": "", **{k: str(v) for k, v in variables.items()}}


def test_this_interpreter_is_found_and_not_its_venv(tmp_path: Path) -> None:
    found = interpreters.find(HERE, clean(tmp_path))
    assert Path(sys.base_prefix) in found.parents


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("home/.pyenv/versions/3.77.16/bin/python", {}),
        ("other/versions/3.77.1/bin/python", {"PYENV_ROOT": "other"}),
        ("third/versions/3.77.1/bin/python", {"PATH": "third/shims"}),
        ("bin/python3.77", {"PATH": "bin"}),
        ("home/miniconda3/envs/py377/bin/python", {}),
        ("envs/old/bin/python", {"CONDA_ENVS_PATH": "envs"}),
        ("conda/envs/old/bin/python", {"CONDA_EXE": "conda/bin/conda"}),
        ("conda/bin/python", {"CONDA_EXE": "conda/bin/conda"}),
    ],
)
def test_places(tmp_path: Path, place: str, variables: dict[str, str]) -> None:
    expected = script(tmp_path / place, "echo 3.77\n")
    environ = clean(tmp_path, **{name: tmp_path / value for name, value in variables.items()})
    assert interpreters.find("3.77", environ) == expected


def test_uv_is_asked_last(tmp_path: Path) -> None:
    expected = script(tmp_path / "store" / "python", "echo 3.77\n")
    script(tmp_path / "bin" / "uv", f"echo {expected}\n")
    assert interpreters.find("3.77", clean(tmp_path, PATH=tmp_path / "bin")) == expected


@pytest.mark.parametrize("body", ["exit 127\n", "echo 3.78\n", "sleep 30\n"], ids=["shim", "another", "hangs"])
def test_what_does_not_answer_is_passed_over(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_TIMEOUT", 0.5)
    script(tmp_path / "home/.pyenv/versions/3.77.2/bin/python", body)
    expected = script(tmp_path / "bin/python3.77", "echo 3.77\n")
    assert interpreters.find("3.77", clean(tmp_path, PATH=tmp_path / "bin")) == expected


def test_newest_release_of_pyenv(tmp_path: Path) -> None:
    for release in ("3.77.9", "3.77.16", "3.77.2"):
        script(tmp_path / f"home/.pyenv/versions/{release}/bin/python", "echo 3.77\n")
    assert "3.77.16" in str(interpreters.find("3.77", clean(tmp_path)))


def test_override_comes_first_and_must_be_right(tmp_path: Path) -> None:
    script(tmp_path / "bin/python3.77", "echo 3.77\n")
    mine = script(tmp_path / "mine", "echo 3.77\n")
    environ = clean(tmp_path, PATH=tmp_path / "bin", CONSORT_PYTHON_3_77=mine)
    assert interpreters.find("3.77", environ) == mine
    environ["CONSORT_PYTHON_3_77"] = str(script(tmp_path / "wrong", "echo 3.6\n"))
    with pytest.raises(EnvironmentUnavailable, match="CONSORT_PYTHON_3_77="):
        interpreters.find("3.77", environ)


def test_none_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnavailable) as caught:
        interpreters.find("3.7", clean(tmp_path))
    message = str(caught.value)
    assert "pyenv install 3.7.17" in message and "conda create -n py37 python=3.7" in message
    assert "runtime: docker" in message and "CONSORT_PYTHON_3_7" in message and "\n" not in message
