"""What the toolkit says twice must be equal."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

import prosody_toolkit  # noqa: E402
from prosody_toolkit import features  # noqa: E402

from worker.extractors.prosody import Prosody  # noqa: E402


def test_the_declaration_and_the_toolkit_say_the_same():
    declared, parameters = Prosody(), dataclasses.asdict(features.Parameters())
    assert parameters == {name: getattr(declared, name) for name in parameters}
    assert (Prosody.version, Prosody.sample_rate) == (features.VERSION, features.SAMPLE_RATE)
    assert features.Parameters().settings() == features.Settings()


def test_published_classes_are_the_same_at_both_places():
    from torch_models import prosody

    assert len(prosody_toolkit.__all__) == 5
    for name in prosody_toolkit.__all__:
        assert getattr(prosody, name) is getattr(prosody_toolkit, name)
