"""What the files of compose say of an environment that nobody has thought of."""

import pytest
import yaml

from orchestrator.environments import composition, definitions

ENV = """
python: "3.12"
gpu: none
base_image: python:3.12-slim-bookworm
locks: {cpu: requirements.lock}
probes: [numpy]
variables: {PRICE: "5 $ a piece"}
"""


@pytest.fixture
def services(tmp_path, monkeypatch):
    """Return the services of a checkout with one environment."""
    monkeypatch.setattr(definitions, "IMAGES", tmp_path)
    (tmp_path / "my-env").mkdir()
    (tmp_path / "my-env" / "env.yaml").write_text(ENV)
    return yaml.safe_load(composition.texts()[composition.BASE])["services"]


def test_it_is_a_service_of_its_own_name_that_the_report_waits_for(services):
    assert set(services) == {"folders", "plan", "my-env", "report"}
    assert services["report"]["depends_on"].keys() == {"plan", "my-env"}
    assert services["my-env"]["environment"]["CONSORT_SCRATCH"] == "/output/.consort/scratch/compose-my-env"
    assert services["my-env"]["environment"]["PRICE"] == "5 $$ a piece", "as with extract, whatever the image says"


def test_it_has_no_modules_and_its_own_base(services):
    told = services["my-env"]["build"]["args"]
    assert told["BASE_IMAGE"] == "${CONSORT_BASE_IMAGE_3_12:-python:3.12-slim-bookworm}"
    assert "MODULES" not in told and "EXTRA_INDEX" not in told


def test_compose_replaces_nothing_in_what_it_is_told(services):
    assert services["my-env"]["build"]["args"]["VARIABLES"] == "PRICE=5 $$ a piece"


def test_without_a_gpu_environment_the_override_has_no_workers(services):
    assert list(yaml.safe_load(composition.texts()[composition.GPU])["services"]) == ["plan"]


def test_what_is_current_is_left_alone(tmp_path):
    assert [path.name for path in composition.write(tmp_path)] == [composition.BASE, composition.GPU]
    (tmp_path / composition.GPU).write_text("# by hand\n")
    assert [path.name for path in composition.write(tmp_path)] == [composition.GPU]
    assert (tmp_path / composition.GPU).read_text("utf-8") == composition.texts()[composition.GPU]
