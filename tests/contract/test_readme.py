"""The README says what the program says, and no more than a person reads; `test_docs` looks at the other pages."""

import pathlib
import re

from orchestrator.__main__ import main, parser
from orchestrator.cli import models
from orchestrator.output.load import Run

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_it_is_short():
    assert 400 < len(README.split()) <= 1000
    assert 50 < len(README.splitlines()) <= 130


def test_its_table_of_models_is_the_one_that_the_command_prints(capsys):
    assert main(["models", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert table == models.markdown() + "\n"
    assert f"\n{table}" in README


def test_its_commands_exist():
    verbs = parser()._subparsers._group_actions[0].choices
    named = set(re.findall(r"`consort ([a-z]+)", README))
    assert named and named <= set(verbs)


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z0-9-]+)", README, re.MULTILINE)) | set(
        re.findall(r"`make ([a-z0-9-]+)", README)
    )
    assert named and named <= targets


def test_its_job_is_a_job(tmp_path):
    from orchestrator.job import reading

    jobs = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert jobs
    for number, text in enumerate(jobs):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, "utf-8")
        assert reading.read(str(path)).models


def test_its_lines_of_python_compile_and_use_what_there_is():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
        for method in re.findall(r"\brun\.([a-z_]+)", block):
            assert hasattr(Run, method) or method in ("root", "records")
