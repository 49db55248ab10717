"""The declaration of prosody: what can be known without torch."""

import sys

import pytest

from worker.extractor import WholeFile
from worker.extractors.prosody import Prosody


def test_first_output_is_poolable_features_and_voicing_is_not() -> None:
    features, voiced, embedding = Prosody().outputs()
    assert (features.name, features.axes, features.shape) == ("features", ("time", "feature"), (None, 6))
    assert (features.dtype, features.poolable) == ("float32", True)
    assert (voiced.name, voiced.axes, voiced.shape) == ("voiced", ("time",), (None,))
    assert (voiced.dtype, voiced.poolable) == ("uint8", False)
    assert (embedding.name, embedding.axes, embedding.shape) == ("embedding", ("feature",), (25,))


@pytest.mark.parametrize("hop_ms, frame_rate", [(16.0, 62.5), (10.0, 100.0), (20, 50.0), (2.01, 500.0)])
def test_frame_rate_is_that_of_the_rounded_hop(hop_ms: float, frame_rate: float) -> None:
    outputs = Prosody(hop_ms=hop_ms, clusters="c").outputs()
    assert [output.name for output in outputs] == ["features", "voiced", "tokens", "embedding"]
    for output in outputs[:3]:
        assert output.frame_rate == frame_rate
        assert output.start == 0.0


def test_documentation_of_features_names_the_units_in_use() -> None:
    assert "Hz, Hz, Hz, Hz, dB, dB" in Prosody(output_normalize=False).outputs()[0].doc
    assert "clipped to 0..1" in Prosody().outputs()[0].doc


def test_memory_grows_with_the_number_of_frames() -> None:
    coarse, fine = (Prosody(hop_ms=hop).framing() for hop in (16.0, 2.0))
    assert isinstance(coarse, WholeFile)
    assert 10e6 < coarse.memory_per_minute < fine.memory_per_minute < 50e6


def test_declaring_imports_no_framework() -> None:
    assert Prosody().checkpoints() == ()
    assert not {"torch_models", "prosody_toolkit"} & set(sys.modules)


def test_an_embedding_that_is_not_learned_says_so() -> None:
    for model in (Prosody(), Prosody(clusters="c")):
        assert model.outputs()[-1].doc.startswith("not learned:")
        assert model.describe()["embedding"] == model.outputs()[-1].doc
    assert "token" in Prosody(clusters="c").outputs()[-1].doc
    assert "trained" in Prosody(clusters="c", encoder="e").outputs()[-1].doc


def test_models_are_needed_for_what_is_made_with_them_alone() -> None:
    model = Prosody(clusters="/c", encoder="/e")
    needed = {}
    for output in ("features", "voiced", "tokens", "embedding"):
        model.wanted = frozenset([output])
        needed[output] = [(c.kind, c.name, c.file) for c in model.checkpoints()]
    tokens = [("folder", "/c", "kmeans_model.json"), ("folder", "/c", "cluster_centers.pt")]
    assert needed["features"] == needed["voiced"] == []
    assert needed["tokens"] == tokens
    assert needed["embedding"] == [*tokens, ("folder", "/e", "encoder.pt")]
    assert Prosody(clusters="/c", encoder="/own.pt").checkpoints()[-1][:4] == ("file", "/own.pt", "", "/own.pt")


def test_an_encoder_without_a_token_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder: .*needs `clusters`"):
        Prosody(encoder="e")
