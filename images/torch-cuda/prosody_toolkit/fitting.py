"""Fit a token model, or an encoder of tokens, to what `prosody` has written for a corpus, as `consort fit` asks."""

import dataclasses
import os
import typing as tp

from prosody_toolkit import cluster_files, features, fitting_encoder, learning, storage
from prosody_toolkit.clustering import ClusteringPipeline
from prosody_toolkit.corpus import Corpus
from prosody_toolkit.vectors import ArrayClass
from worker import schema
from worker.extractor import Lesson, choice
from worker.request import Fit

_BLOCK = 65536  # vectors
_Facts = tp.Dict[str, tp.Any]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What to fit, and how."""

    stage: str = choice("clusters", "encoder")
    holds: str = choice("features", "tokens")  # what the files are
    n_clusters: int = 120
    seed: int = 0
    reduced_dims: tp.Optional[int] = None
    max_iter: int = 1000
    encoder: fitting_encoder.Options = dataclasses.field(default_factory=fitting_encoder.Options)


def run(asked: Fit, settings: features.Settings, device: str, files: tp.Mapping[str, str], lesson: Lesson) -> _Facts:
    """Fit what is asked for, and return the facts.

    Args:
        asked: by a shard; its options are fields of `_Asked`.
        settings: of the `prosody` that made the arrays.
        device: "cpu" or "cuda".
        files: of the token model, by their names, where an encoder is fitted.
        lesson: where; it gets the model's files.

    Raises:
        ValueError: options or data that cannot be.
        learning.Stopped: it was to end.
    """
    request = schema.build(_Asked, {**asked.options, "stage": asked.stage, "holds": asked.holds}, "request")
    storage.sweep(lesson.folder)

    def say(text: str, share: tp.Optional[float]) -> None:
        if lesson.stop.is_set() and request.stage == "clusters":
            raise learning.Stopped  # k-means has no state to keep
        lesson.say(text, share)

    due = fitting_encoder.every_second()

    def count(done: int, total: int) -> None:
        if due():
            say(f"file {done} of {total}", 0.0)

    arrays = Corpus(lesson.arrays, asked.files, settings, count)
    if request.stage == "clusters":
        return _fit_clusters(arrays, lesson.folder, request, device, say)
    if cluster_files.DESCRIPTION not in files:
        raise ValueError("an encoder is made of tokens; give the folder of their model by --cluster-model")
    clusters = os.path.dirname(files[cluster_files.DESCRIPTION])
    model = cluster_files.load(clusters)
    features.refuse_others(model.features, arrays.features, clusters)
    plan = dataclasses.replace(request.encoder.plan, seed=request.seed)
    options = dataclasses.replace(request.encoder, plan=plan)
    tokens = list(arrays.tokens(model.n_clusters) if request.holds == "tokens" else arrays.find_tokens(model))
    return fitting_encoder.fit(tokens, lesson.folder, model.n_clusters, options, model.sha256, device, say, lesson.stop)


def _fit_clusters(corpus: Corpus, folder: str, asked: _Asked, device: str, say: fitting_encoder.SayShare) -> _Facts:
    """Fit k-means to all frames of a corpus, write the model, and return what it is like."""
    dim = len(corpus.features.names)
    collection = ArrayClass(dim, _BLOCK)
    for vectors in corpus.vectors():
        collection.add_batch(vectors)
    pipeline = ClusteringPipeline(asked.n_clusters, dim, device, seed=asked.seed, features=corpus.features)
    say(f"clusters {len(collection)} frames", 0.0)

    def tell(iteration: int, inertia: float) -> None:
        say(f"iteration {iteration}, inertia per frame {inertia:.5f}", 0.0)

    quality = pipeline.train(collection.finalize(), folder, asked.reduced_dims, max_iter=asked.max_iter, say=tell)
    model = pipeline.model
    facts = {
        "files": len(corpus.files),
        "n_clusters": asked.n_clusters,
        "iterations": model.facts["iterations"],
        "converged": model.facts["converged"],
        "seed": asked.seed,
        "quality": quality,
        "sha256": model.sha256,
        "frame_seconds": corpus.features.hop_length / corpus.features.sample_rate,
    }
    storage.write_provenance(folder, "clusters", facts)
    return facts
