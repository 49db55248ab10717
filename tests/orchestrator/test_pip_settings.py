"""Where pip looks is asked of pip itself."""

import os

import pytest

from orchestrator.weights import pip_settings


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_without_configuration_the_index_is_the_one_that_pip_names():
    (index,) = pip_settings.read().index_urls
    assert index.startswith("https://") and index.endswith("/simple")


def test_a_configured_index_takes_its_place(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://example.org/a https://example.org/b")
    found = pip_settings.read().index_urls
    assert found == ("https://example.org/simple", "https://example.org/a", "https://example.org/b")


def test_no_index_is_none_at_all(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_settings.read().index_urls == ()
