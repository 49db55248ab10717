"""Environments as their folders declare them."""

import hashlib

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


@pytest.mark.parametrize("name", ["worker/main.py", "worker/new.py", "my-env/mine/model.py"])
def test_the_hash_of_the_code_changes_with_every_file_that_runs_inside(images, name):
    path = images / "my-env" / "env.yaml"
    path.write_text(ENV + "modules: [mine]\n")
    before = definitions.find("my-env").worker_sha256()
    (images / name).write_text("z = 2\n")
    assert definitions.find("my-env").worker_sha256() == before  # once per process
    definitions._code_sha256.cache_clear()
    assert definitions.find("my-env").worker_sha256() != before
