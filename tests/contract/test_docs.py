"""The pages say what the code says: keys, flags, exit codes, models, modules, commands, links."""

import argparse
import dataclasses
import pathlib
import re

import pytest
import yaml

import orchestrator
from orchestrator import errors
from orchestrator.__main__ import parser
from orchestrator.environments import definitions
from orchestrator.job import reading
from orchestrator.job.spec import JobSpec, ModelSpec
from orchestrator.output.load import Run
from worker import catalog
from worker.extractor import Extractor

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
IN_WORK = "<!-- check:"  # a line about what is being built: its paths are not looked up
VERBS = parser()._subparsers._group_actions[0].choices

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
every_model = pytest.mark.parametrize("name", catalog.names())


def read(name):
    return (ROOT / name).read_text("utf-8")


def section(page, title):
    """Return the text below a heading, up to the next one of its level or above."""
    level = re.search(rf"^(#+) {re.escape(title)}$", page, re.MULTILINE)
    assert level, f"no heading {title}"
    return re.split(rf"^#{{1,{len(level[1])}}} ", page[level.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text):
    """Return the cells of all tables, without heads; a bar behind a backslash is text."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines if not set("".join(cells)) <= set("-: ")][1:]


def unquoted(cell):
    return re.findall(r"`([^`]+)`", cell)


def plain(value):
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def declared(kind):
    """Return {field: default as the page writes it}."""
    found = {}
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        found[field.name] = "required" if required else plain(made)
    return found


@pytest.mark.parametrize(("title", "kind"), [("Keys of a job", JobSpec), ("Keys of a model", ModelSpec)])
def test_the_keys_on_the_page_are_those_of_the_dataclass(title, kind):
    told = {unquoted(name)[0]: default.strip("`") for name, default, _ in rows(section(read("docs/jobs.md"), title))}
    assert told == declared(kind)


def test_the_flags_on_the_page_are_those_of_extract():
    tables = [part for part in section(read("docs/jobs.md"), "Flags").split("\n\n") if part.startswith("| flag |")]
    told = [
        flag for table in tables for row in rows(table) for cell in row[:2] for flag in re.findall(r"--[a-z_-]+", cell)
    ]
    actions = [a for a in VERBS["extract"]._actions if a.option_strings and not isinstance(a, argparse._HelpAction)]
    assert sorted(told) == sorted(flag for action in actions for flag in action.option_strings)


def test_the_exit_codes_are_those_of_the_program_and_stand_on_one_page():
    constants = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    told = [int(code) for code, _ in rows(section(read("docs/jobs.md"), "Exit codes"))]
    assert len(told) == len(constants) and set(told) == constants
    raised = [kind.exit_code for kind in (errors.JobError, errors.EnvironmentUnavailable, errors.RunFailed)]
    assert [code for code in told if code in raised] == raised  # the first that applies, in this order
    again = re.compile(r"\b130\b.{0,5}interrupted|interrupted.{0,5}\b130\b")
    assert [page.name for page in PAGES if again.search(page.read_text("utf-8"))] == ["jobs.md"]


@every_model
def test_a_model_is_on_the_page_as_it_is(name):
    text = section(read("docs/models.md"), name)
    kind, model = catalog.find(name), catalog.build(name, {})
    tables = [rows(part) for part in text.split("\n\n") if part.startswith("|")]
    outputs, parameters = tables
    sizes = {
        o.name: [a[0].upper() if n is None else str(n) for a, n in zip(o.axes, o.shape, strict=True)]
        for o in model.outputs()
    }
    told = {unquoted(cells[0])[0]: (cells[1], cells[2], cells[3]) for cells in outputs}
    assert told == {
        o.name: (f"[{', '.join(sizes[o.name])}]", o.dtype, f"{o.frame_rate:.4g}" if o.frame_rate else "-")
        for o in model.outputs()
    }
    fields = dataclasses.fields(model)
    assert [(unquoted(a)[0], b.strip("`")) for a, b, _ in parameters] == [
        (field.name, plain(getattr(model, field.name))) for field in fields
    ]
    assert f"Environment {kind.environment}" in text and f"{model.sample_rate} Hz" in text
    assert all(licence in text for licence in {c.licence for c in model.checkpoints()})


def test_the_models_of_the_page_are_all_with_the_speed_that_a_plan_counts_with():
    page = read("docs/models.md")
    told = {re.match(r"\[(\w+)\]", cells[0])[1]: cells for cells in rows(page.split("\n## ")[0])}
    assert sorted(told) == catalog.names() == sorted(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    for name, cells in told.items():
        model = catalog.build(name, {})
        assert float(cells[2].split()[0]) == model.seconds_per_minute
        assert cells[3].startswith("yes" if model.uses_gpu() else "no")


def test_the_modules_of_the_architecture_are_there():
    lines = [line for line in read("docs/architecture.md").splitlines() if IN_WORK not in line]
    named = {path for line in lines for path in unquoted(line) if re.fullmatch(r"[\w/-]+(\.py|/)", path)}
    places = [ROOT / "orchestrator", ROOT / "images", ROOT]
    assert len(named) > 30
    assert not [path for path in sorted(named) if not any((place / path).exists() for place in places)]


def test_the_rooms_of_the_architecture_are_all():
    packages = {f"{p.parent.name}/" for p in (ROOT / "orchestrator").glob("*/__init__.py")}
    rooms = {name for cells in rows(section(read("docs/architecture.md"), "The rooms")) for name in unquoted(cells[0])}
    assert packages <= rooms


def test_the_commands_of_the_pages_exist():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    verbs = set(re.findall(r"(?:^|`|bin/)consort ([a-z]+)", text, re.MULTILINE))
    targets = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE))
    known = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))
    assert len(verbs) > 5 and verbs <= set(VERBS)
    assert len(targets) > 5 and targets <= known


@every_page
def test_the_files_that_a_page_links_to_are_there_with_their_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        heads = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]


def test_the_jobs_of_the_pages_are_jobs(tmp_path):
    jobs = [job for page in PAGES for job in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    assert len(jobs) > 2
    for number, text in enumerate(jobs):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, "utf-8")
        assert reading.read(str(path)).models


def test_the_python_of_the_pages_uses_what_there_is():
    blocks = [b for page in PAGES for b in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    assert len(blocks) > 2
    for block in blocks:
        compile(block, "page", "exec")
        for method in re.findall(r"\brun\.([a-z_]+)", block):
            assert hasattr(Run, method) or method in ("root", "records")
        for method in re.findall(r"^    def ([a-z_]+)\(self", block, re.MULTILINE):
            assert hasattr(Extractor, method)


def test_the_citation_is_of_this_version_and_of_those_who_hold_the_rights():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "title", "message", "authors"} <= cited.keys() and cited["cff-version"] == "1.2.0"
    assert (cited["title"], cited["license"], cited["version"]) == ("Consort", "MIT", orchestrator.__version__)
    assert [author["name"] for author in cited["authors"]] == [re.search(r"\(c\) \d+ (.+)", read("LICENSE"))[1]]


def test_the_notice_names_every_file_that_follows_a_publication():
    named = set(re.findall(r"[\w/-]+(?:\.py|/\w+)", read("NOTICE")))
    assert {path for path in named if path.startswith("images/") and not (ROOT / path).exists()} == set()
    networks = {path.name for path in (ROOT / "images" / "worker" / "networks").glob("*.py")}
    own = {"__init__.py", "spectral_convolution.py"}  # textbook
    assert networks - own <= {path.rpartition("/")[2] for path in named}


def test_every_page_can_be_reached_from_the_readme():
    linked = re.findall(r"\]\(([^)\s#]+)", read("README.md"))
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} | {"CONTRIBUTING.md"} <= set(linked)
    assert "NOTICE" in linked


def test_what_each_environment_needs_of_a_gpu_is_what_its_env_yaml_says():
    said = {row[0]: tuple(row[1:3]) for row in rows(section(read("docs/containers.md"), "GPUs"))}
    needs = {name: definitions.find(name).spec.cuda for name in definitions.names()}
    assert said == {
        name: (f"{spec.driver} or newer", f"sm_{spec.sm[0]} to sm_{spec.sm[1]}") if spec else ("", "none")
        for name, spec in needs.items()
    }
