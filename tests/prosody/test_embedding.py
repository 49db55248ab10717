"""Tokens and embedding of one item, and models that do not belong together."""

import dataclasses

import fits
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit import cluster_files, features  # noqa: E402
from prosody_toolkit.embedding import Describer  # noqa: E402
from prosody_toolkit.encoder import ProsodicSequenceEncoder  # noqa: E402


@pytest.fixture
def corpus(tmp_path):
    """Return a folder with a corpus and its clusters, and the request for an encoder."""
    return fits.make_corpus(tmp_path)


def test_what_is_made_of_an_item_fits_the_models(corpus):
    folder, request = corpus
    assert fits.run_encoder(folder, request)[0] == 0
    vectors = fits.make_features()["03.wav"]
    voiced = np.ones(len(vectors), np.uint8)
    clusters = [str(folder / "clusters" / name) for name in (cluster_files.DESCRIPTION, cluster_files.CENTRES)]
    settings = features.Settings()
    bare = Describer(settings, [], None).describe(vectors, voiced)
    assert list(bare) == ["embedding"] and bare["embedding"].shape == (25,)
    counted = Describer(settings, clusters, None).describe(vectors, voiced)
    assert counted["tokens"].dtype == np.int32 and counted["embedding"].shape == (25 + fits.TOKENS,)
    np.testing.assert_array_equal(counted["embedding"][:25], bare["embedding"])
    path = str(folder / "encoder" / "encoder.pt")
    learned = Describer(settings, clusters, path).describe(vectors, voiced)
    assert learned["embedding"].shape == (16,) and learned["embedding"].dtype == np.float32
    low, high = np.array(features.RANGES, np.float32).T
    plain = dataclasses.replace(settings, output_normalize=False)
    again = Describer(plain, clusters, path).describe(vectors * (high - low) + low, voiced)
    np.testing.assert_array_equal(again["tokens"], counted["tokens"])


def test_models_that_do_not_belong_together_are_refused(corpus):
    folder, request = corpus
    assert fits.run_encoder(folder, request)[0] == 0
    path = str(folder / "encoder" / "encoder.pt")
    clusters = [str(folder / "clusters" / name) for name in (cluster_files.DESCRIPTION, cluster_files.CENTRES)]
    with pytest.raises(ValueError, match="hop_length 256, here it is 128"):
        Describer(features.Settings(hop_length=128), clusters, None)
    untrained = str(folder / "untrained.pt")
    ProsodicSequenceEncoder(fits.TOKENS + 2, 16, 1, 2).save(untrained)
    with pytest.raises(ValueError, match="never trained"):
        Describer(features.Settings(), clusters, untrained)
    for change in ({"reduced_dims": 3}, {"n_clusters": fits.TOKENS + 1}):
        other = {"files": request["files"], "n_clusters": fits.TOKENS, **change}
        assert fits.fit(folder, other, "clusters")[0] == 0
        with pytest.raises(ValueError, match="tokens of another model"):
            Describer(features.Settings(), clusters, path)
