"""Environments as their folders declare them."""

import hashlib
import os

import pytest

from orchestrator.environments import definitions
from orchestrator.errors import ConsortError, EnvironmentUnavailable, JobError

ENV = """
python: "3.11"
gpu: none
base_image: python:3.11-slim-bookworm
locks: {cpu: requirements.lock}
probes: [numpy]
"""


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A checkout with one environment of ours."""
    monkeypatch.setattr(definitions, "IMAGES", tmp_path)
    monkeypatch.setattr(definitions, "_OUTSIDE", {})
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "main.py").write_text("x = 1\n")
    (tmp_path / "my-env" / "mine").mkdir(parents=True)
    (tmp_path / "my-env" / "mine" / "model.py").write_text("y = 1\n")
    (tmp_path / "my-env" / "env.yaml").write_text(ENV)
    (tmp_path / "my-env" / "requirements.lock").write_text("numpy==1\n")
    definitions._code_sha256.cache_clear()
    yield tmp_path
    definitions._code_sha256.cache_clear()


def test_a_folder_with_an_env_yaml_is_an_environment(images):
    (images / "not-one").mkdir()
    assert definitions.names() == ["my-env"]
    found = definitions.find("my-env")
    assert (found.name, found.spec.python, found.spec.probes) == ("my-env", "3.11", ["numpy"])
    assert found.lock_sha256("cpu") == hashlib.sha256(b"numpy==1\n").hexdigest()


def test_an_unknown_name_is_refused_with_the_known_ones(images):
    with pytest.raises(JobError, match=r"unknown environment; did you mean my-env.; known environments: my-env"):
        definitions.find("my-en")


def test_a_variant_that_is_not_there(images):
    with pytest.raises(EnvironmentUnavailable, match="my-env has no cuda variant; it has cpu"):
        definitions.find("my-env").lock("cuda")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENV + "pyhton: 3\n", "my-env/env.yaml: pyhton: unknown key; did you mean python"),
        (ENV.replace('"3.11"', "3.11"), "my-env/env.yaml: python: expected text, got 3.11"),
        (ENV + "gpu: none\n", "my-env/env.yaml: line 7: duplicate key 'gpu'"),
        ("", "my-env/env.yaml: job: expected a mapping, got nothing"),
    ],
)
def test_a_damaged_declaration_is_one_clear_error(images, text, message):
    (images / "my-env" / "env.yaml").write_text(text)
    with pytest.raises(ConsortError) as caught:
        definitions.find("my-env")
    assert str(caught.value).startswith(message)


CUDA = "cuda: {module: mine.devices, driver: 580, sm: [75, 120]}\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mine.devices", "other.devices", "cuda.module: other.devices is in none of `modules`"),
        ("580", "0", "cuda: driver: expected the number of a driver, such as 580"),
        ("580", "'580'", "cuda.driver: expected a whole number, got '580'"),
        ("[75, 120]", "[120, 75]", "cuda: sm: expected the first and the last architecture, such as [75, 120]"),
        ("[75, 120]", "[75]", "cuda: sm: expected the first and the last"),
        (", sm: [75, 120]", "", "cuda.sm: missing"),
        ("driver", "diver", "cuda.diver: unknown key"),
        ("cuda: g.lock}", "gpu: g.lock}", "cuda: there is no locks.cuda that would need it"),
    ],
)
def test_what_a_gpu_must_have_is_checked(images, old, new, message):
    text = ENV.replace("}", ", cuda: g.lock}", 1) + "modules: [mine]\n" + CUDA
    (images / "my-env" / "env.yaml").write_text(text)
    assert definitions.find("my-env").spec.cuda.needs == "driver 580 or newer and a GPU of sm_75 to sm_120"
    assert old in text
    (images / "my-env" / "env.yaml").write_text(text.replace(old, new))
    with pytest.raises(ConsortError) as caught:
        definitions.find("my-env")
    assert f"env.yaml: {message}" in str(caught.value)


@pytest.mark.parametrize("name", ["worker/main.py", "worker/new.py", "my-env/mine/model.py"])
def test_the_hash_of_the_code_changes_with_every_file_that_runs_inside(images, name):
    path = images / "my-env" / "env.yaml"
    path.write_text(ENV + "modules: [mine]\n")
    before = definitions.find("my-env").worker_sha256()
    (images / name).write_text("z = 2\n")
    assert definitions.find("my-env").worker_sha256() == before  # once per process
    definitions._code_sha256.cache_clear()
    assert definitions.find("my-env").worker_sha256() != before


@pytest.fixture
def outside(images, tmp_path_factory):
    """Return a function that makes an environment outside the checkout."""
    place = tmp_path_factory.mktemp("outside")

    def make(name="own", text=ENV, inside="."):
        folder = place / inside / name
        folder.mkdir(parents=True)
        (folder / "env.yaml").write_text(text)
        (folder / "requirements.lock").write_text("numpy==2\n")
        return folder

    return make


def test_a_folder_outside_is_found_by_its_name_once_it_is_added(outside):
    folder = outside()
    with pytest.raises(JobError, match=r"known environments: my-env$"):
        definitions.find("own")
    definitions.add([str(folder)])
    found = definitions.find("own")
    assert (found.name, found.folder, found.outside) == ("own", folder, True)
    assert definitions.names() == ["my-env"], "those of the checkout"
    assert not definitions.find("my-env").outside
    with pytest.raises(JobError, match="did you mean own"):
        definitions.find("onw")


def test_the_job_that_was_read_last_says_where_a_name_is(outside):
    first, second = outside(inside="a"), outside(inside="b")
    definitions.add([str(first)])
    definitions.add([str(second), str(second)])
    assert definitions.find("own").folder == second


def test_a_folder_may_stand_for_a_name(outside, monkeypatch):
    folder = outside()
    assert definitions.at(str(folder)).name == definitions.at(f"{folder}/").name == "own"
    monkeypatch.chdir(folder.parent)
    (folder.parent / "my-env").mkdir()
    assert definitions.at("own").folder == folder and not definitions.at("my-env").outside
    assert definitions.at(str(definitions.IMAGES / "my-env")) == definitions.find("my-env")
    with pytest.raises(JobError, match="unknown environment"):
        definitions.at("elsewhere")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("my-env", ENV, "Consort has an environment my-env of its own; rename the folder"),
        ("My Env", ENV, "images get its name, so it may hold only a-z"),
        ("own", ENV + "modules: [mine]\n", "own/env.yaml: modules: no folder mine beside it"),
        ("own", ENV + "modules: [../own]\n", "own/env.yaml: modules: no folder ../own beside it"),
        ("own", ENV.replace("cpu: ", "cpu: ../"), "own/env.yaml: locks.cpu: no file ../requirements.lock beside it"),
        (
            "own",
            ENV.replace("nts.lock", "nts.cpu.lock"),
            "locks.cpu: no file requirements.cpu.lock beside it; images/lo",
        ),
        ("own", ENV + "pyhton: 3\n", "own/env.yaml: pyhton: unknown key; did you mean python"),
    ],
)
def test_a_folder_outside_that_cannot_be_built_is_refused_with_its_place_in_the_job(outside, name, text, words):
    good, bad = outside("good"), outside(name, text)
    with pytest.raises(JobError) as caught:
        definitions.add([str(good), str(bad)])
    assert str(caught.value).startswith("environments[1]: ") and words in str(caught.value)
    with pytest.raises(JobError, match="unknown environment"):
        definitions.find("good")


def test_two_folders_of_one_name_in_a_job_are_refused(outside):
    folders = [str(outside(inside=inside)) for inside in "ab"]
    with pytest.raises(JobError, match=r"environments\[1\]: .*b/own: .*a/own has the same name; rename one"):
        definitions.add(folders)


def test_a_folder_without_a_declaration_is_refused(outside):
    (folder := outside()).joinpath("env.yaml").unlink()
    with pytest.raises(JobError, match=r"environments\[0\]: .*own: holds no env.yaml"):
        definitions.add([str(folder)])


def test_an_environment_that_would_be_waited_for_is_refused(outside):
    folder = outside(text=ENV + "modules: [mine]\n")
    (folder / "mine").mkdir()
    os.mkfifo(folder / "mine" / "f.py")
    with pytest.raises(JobError, match=r"own/mine/f\.py: is no file"):
        definitions.add([str(folder)])


def test_an_env_yaml_that_is_no_text_is_one_line(outside):
    folder = outside()
    (folder / "env.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(JobError, match=r"environments\[0\]: own/env\.yaml: cannot be read: "):
        definitions.add([str(folder)])
