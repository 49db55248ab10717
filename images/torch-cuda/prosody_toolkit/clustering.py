"""Fit the tokens of prosody: k-means over the features of a corpus.

::

    collection = ArrayClass(features_dim=6)
    for wave in waves:
        collection.add_batch(features.analyse(wave, features.Settings())[0])
    clustering = ClusteringPipeline(n_clusters=120, device="cpu")
    clustering.train(collection.finalize(), "models/clusters")
"""

import logging
import typing as tp
import warnings

import numpy as np
import torch

from prosody_toolkit import cluster_files, devices, kmeans
from prosody_toolkit.cluster_files import ClusterModel
from prosody_toolkit.features import FeatureDefinition, define
from prosody_toolkit.vectors import ArrayClass, Points, Space, Vectors, collect, fit_pca

Collection = tp.Union[ArrayClass, Vectors]

_LOG = logging.getLogger(__name__)


class ClusteringPipeline:
    """k-means++ and Lloyd's iteration; seeded, on a CPU the same bytes every time."""

    def __init__(
        self,
        n_clusters: int = 120,
        input_features_dim: int = 6,
        device: str = devices.CUDA,
        *,
        seed: int = 0,
        feature_weights: tp.Optional[tp.Sequence[float]] = None,
        features: tp.Optional[FeatureDefinition] = None,
    ) -> None:
        """Set up; nothing is computed yet.

        Args:
            n_clusters: K, the number of tokens.
            input_features_dim: D, numbers per vector.
            device: "cpu" or "cuda"; only where it is left out, the CPU stands in for a GPU that is not here.
            seed: of the seeding and of the sample for the silhouette.
            feature_weights: what each feature is multiplied by before distances are taken; None: 1.
            features: what the vectors are; None takes six numbers between 0 and 1 for the features of this
                package with its default settings.

        Raises:
            ValueError: a number or a device that cannot be.
        """
        if n_clusters < 1 or input_features_dim < 1:
            raise ValueError("n_clusters and input_features_dim must be at least 1")
        weights = torch.ones(input_features_dim) if feature_weights is None else torch.tensor(feature_weights).float()
        if weights.shape != (input_features_dim,) or not bool((weights > 0).all() and weights.isfinite().all()):
            raise ValueError(f"feature_weights: expected {input_features_dim} positive numbers")
        self.n_clusters = n_clusters
        self.input_features_dim = input_features_dim
        self.device = devices.choose(device)
        self.seed = seed
        self._weights = weights
        self._features = features
        self._model: tp.Optional[ClusterModel] = None

    @property
    def model(self) -> ClusterModel:
        """The model that was trained or loaded.

        Raises:
            RuntimeError: neither has happened.
        """
        if self._model is None:
            raise RuntimeError("there is no token model yet; call train or load_model")
        return self._model

    def train(
        self,
        features_collation: Collection,
        clustering_model_dir: str,
        reduced_dims: tp.Optional[int] = None,
        dim_reducer_method: str = "pca",
        max_iter: int = 1000,
        say: tp.Optional[kmeans.OnIteration] = None,
    ) -> tp.Dict[str, tp.Any]:
        """Fit the clusters, write them into a folder, and return their quality.

        Args:
            features_collation: vectors `[N, D]`.
            clustering_model_dir: gets `kmeans_model.json` and `cluster_centers.pt`.
            reduced_dims: principal components to keep; None takes the vectors as they are.
            dim_reducer_method: "pca".
            max_iter: Lloyd's iterations at most.
            say: gets every iteration and the inertia per vector.

        Raises:
            ValueError: too few different vectors, or a reduction that cannot be.
        """
        vectors = collect(features_collation, self.input_features_dim)
        blocks = list(vectors.blocks())
        if dim_reducer_method == "umap":
            raise ValueError(
                "dim_reducer_method='umap': a UMAP can only be kept as pickled Python objects, which may run code when "
                "loaded; use 'pca', or no reduction, which six features do not need"
            )
        if dim_reducer_method != "pca":
            raise ValueError(f"dim_reducer_method: {dim_reducer_method!r} is not pca")
        space, held = Space(self._weights), None
        if reduced_dims is not None:
            space, held = fit_pca(blocks, self._weights, reduced_dims)
        points = Points(blocks, space, self.device)
        random = np.random.default_rng(self.seed)
        fit = kmeans.refine(points, kmeans.seed(points, self.n_clusters, random), max_iter, say)
        quality = kmeans.measure(points, fit.centres, self.seed)
        facts = {
            "seed": self.seed,
            "max_iter": max_iter,
            "iterations": fit.iterations,
            "converged": fit.converged,
            "pca_variance": held,
            "quality": quality,
        }
        model = ClusterModel(fit.centres.cpu(), space, self._define(blocks), facts)
        self._model = cluster_files.save(model, clustering_model_dir)
        return quality

    def load_model(self, clustering_model_dir: str) -> "ClusteringPipeline":
        """Read a model, which takes the place of the numbers given at the start, and return self.

        Raises:
            FileNotFoundError, ValueError: it is missing or damaged.
        """
        self._model = cluster_files.load(clustering_model_dir)
        self.n_clusters, self.input_features_dim = self._model.n_clusters, self._model.input_features_dim
        return self

    def predict(self, vectors: Vectors) -> tp.Tuple[np.ndarray, np.ndarray]:
        """Return the tokens int32 `[N]` of vectors `[N, D]`, and their distances to the centres float32 `[N]`."""
        return predict(self.model, vectors, self.device)

    def clustering_quality_analysis(self, features: Collection) -> tp.Dict[str, tp.Any]:
        """Return inertia, silhouette, usage and perplexity of the tokens of vectors; see `kmeans.measure`."""
        vectors = collect(features, self.input_features_dim)
        points = Points(list(vectors.blocks()), self.model.space, self.device)
        return kmeans.measure(points, self.model.centres.to(self.device), self.seed)

    def _define(self, blocks: tp.List[np.ndarray]) -> tp.Optional[FeatureDefinition]:
        """Return what the vectors are, as far as that is known."""
        if self._features is not None:
            return self._features
        default = define()
        if self.input_features_dim != len(default.names):
            return None
        if all(block.min() >= 0 and block.max() <= 1 for block in blocks):
            _LOG.warning(
                "the vectors are taken for features of the default settings; if others made them, give "
                "features=extractor.definition, or tokens of audio will be those of other features"
            )
            return default
        warnings.warn(
            "vectors outside 0 .. 1 are not this package's normalised features, so the model will not say what they "
            "are, and tokens of audio will be refused; give `features`, or set output_normalize=True",
            stacklevel=3,
        )
        return None


def predict(model: ClusterModel, vectors: Vectors, device: str = "cpu") -> tp.Tuple[np.ndarray, np.ndarray]:
    """Return the tokens int32 `[N]` of vectors `[N, D]`, and their distances float32 `[N]`.

    Raises:
        ValueError: vectors of another dimension.
    """
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or rows.shape[1] != model.input_features_dim:
        raise ValueError(f"expected vectors [N, {model.input_features_dim}], got {list(rows.shape)}")
    points, centres = Points([rows], model.space, device), model.centres.to(device)
    found = [kmeans.assign(chunk, centres) for chunk in points.chunks()]
    if not found:
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    tokens, squared = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return tokens.numpy().astype(np.int32), squared.sqrt().numpy()
