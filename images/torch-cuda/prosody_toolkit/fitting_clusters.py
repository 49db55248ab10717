"""Fit a token model to the features of a corpus, file after file."""

import os
import typing as tp

from prosody_toolkit import storage
from prosody_toolkit.clustering import ClusteringPipeline
from prosody_toolkit.corpus import Corpus
from prosody_toolkit.vectors import ArrayClass

PROVENANCE = "PROVENANCE.json"  # its words are copied into every record that is made with the model
_BLOCK = 65536  # vectors

_Say = tp.Callable[[str, float], None]  # gets a line, and the share that is done


def fit(
    corpus: Corpus,
    folder: str,
    n_clusters: int = 120,
    seed: int = 0,
    reduced_dims: tp.Optional[int] = None,
    max_iter: int = 1000,
    device: str = "cpu",
    say: _Say = lambda text, share: None,
) -> tp.Dict[str, tp.Any]:
    """Fit k-means to all frames of a corpus, write the model, and return what it is like.

    Args:
        corpus: of features.
        folder: gets `kmeans_model.json` and `cluster_centers.pt`.
        n_clusters: number of tokens.
        seed: of seeding and silhouette.
        reduced_dims: principal components to keep, or None.
        max_iter: Lloyd's iterations at most.
        device: "cpu" or "cuda".
        say: gets a line now and then.

    Raises:
        ValueError: too few different frames, or an array that cannot be read.
    """
    dim = len(corpus.features.names)
    collection = ArrayClass(dim, _BLOCK)
    for vectors in corpus.vectors():
        collection.add_batch(vectors)
    pipeline = ClusteringPipeline(n_clusters, dim, device, seed=seed, features=corpus.features)
    say(f"clusters {len(collection)} frames", 0.0)
    quality = pipeline.train(
        collection.finalize(),
        folder,
        reduced_dims,
        max_iter=max_iter,
        say=lambda iteration, inertia: say(f"iteration {iteration}, inertia per frame {inertia:.5f}", 0.0),
    )
    model = pipeline.model
    facts = {
        "files": len(corpus),
        "n_clusters": n_clusters,
        "iterations": model.facts["iterations"],
        "converged": model.facts["converged"],
        "seed": seed,
        "quality": quality,
        "sha256": model.sha256,
        "frame_seconds": corpus.features.hop_length / corpus.features.sample_rate,
    }
    storage.write_json(os.path.join(folder, PROVENANCE), {"clusters": {"made by": "consort fit", **facts}})
    return facts
