"""Fit a token model, or an encoder of tokens, to what `prosody` has written for a corpus, as `consort fit` asks."""

import dataclasses
import os
import time
import typing as tp

from prosody_toolkit import cluster_files, definition, fitting_clusters, fitting_encoder, learning, storage
from prosody_toolkit.cluster_files import ClusterModel
from prosody_toolkit.corpus import Corpus
from prosody_toolkit.features import Settings
from worker import schema
from worker.extractor import Lesson, choice
from worker.request import Fit


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


def run(
    asked: Fit, settings: Settings, device: str, files: tp.Mapping[str, str], lesson: Lesson
) -> tp.Dict[str, tp.Any]:
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

    arrays = Corpus(lesson.arrays, asked.files, settings, _every(lambda done, n: say(f"file {done} of {n}", 0.0)))
    if request.stage == "clusters":
        settled = (request.n_clusters, request.seed, request.reduced_dims, request.max_iter)
        return fitting_clusters.fit(arrays, lesson.folder, *settled, device, say)
    if cluster_files.DESCRIPTION not in files:
        raise ValueError("an encoder is made of tokens; give the folder of their model by --cluster-model")
    clusters = os.path.dirname(files[cluster_files.DESCRIPTION])
    model = cluster_files.load(clusters)
    definition.refuse_others(model.features, arrays.features, clusters)
    plan = dataclasses.replace(request.encoder.plan, seed=request.seed)
    options = dataclasses.replace(request.encoder, plan=plan)
    sequences = list(_tokens(arrays, model, request.holds))
    return fitting_encoder.fit(
        sequences, lesson.folder, model.n_clusters, options, model.sha256, device, say, lesson.stop
    )


def _tokens(corpus: Corpus, model: ClusterModel, holds: str) -> tp.Iterator[tp.Any]:
    return corpus.tokens(model.n_clusters) if holds == "tokens" else corpus.find_tokens(model)


def _every(say: tp.Callable[[int, int], None], seconds: float = 1.0) -> tp.Callable[[int, int], None]:
    """Return `say`, called now and then only."""
    last = [0.0]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= seconds:
            last[0] = time.monotonic()
            say(done, total)

    return tell
