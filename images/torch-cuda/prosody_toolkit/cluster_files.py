"""The two files of a token model, and the layout of others that is read as well.

::

    kmeans_model.json     what the clusters are: features, weights, seed, quality; plain values
    cluster_centers.pt    centers [K, R]; with a reduction pca_mean [D] and pca_components [R, D]; plain tensors

The JSON names the hash of the tensors and is written last, so two files of different fits are noticed. A
JSON with `n_clusters` and `cluster_centers` alone, as other programs publish it, is read too, but as it
says nothing of its features, it is refused wherever features would be put into it.
"""

import dataclasses
import os
import typing as tp

import torch

from prosody_toolkit import storage
from prosody_toolkit.features import FeatureDefinition, read_definition
from prosody_toolkit.vectors import Space

DESCRIPTION = "kmeans_model.json"
CENTRES = "cluster_centers.pt"
_FORMAT = "consort token model 1"


@dataclasses.dataclass(frozen=True)
class ClusterModel:
    """K centres in a space, and the features that they were fitted to."""

    centres: torch.Tensor  # float32 [K, R]
    space: Space
    features: tp.Optional[FeatureDefinition]  # None: nobody knows
    facts: tp.Dict[str, tp.Any]  # seed, iterations, quality ...
    sha256: str = ""  # of the file of the centres

    @property
    def n_clusters(self) -> int:
        """K, the number of tokens."""
        return len(self.centres)

    @property
    def input_features_dim(self) -> int:
        """D, the numbers of a vector."""
        return len(self.space.weights)


def save(model: ClusterModel, folder: str) -> ClusterModel:
    """Write both files into a folder, which is made if needed, and return the model with its hash."""
    os.makedirs(folder, exist_ok=True)
    tensors = {"centers": model.centres.cpu()}
    if model.space.components is not None and model.space.mean is not None:
        tensors.update(pca_mean=model.space.mean.cpu(), pca_components=model.space.components.cpu())
    sha256 = storage.write_tensors(os.path.join(folder, CENTRES), tensors)
    said = {
        **model.facts,
        "format": _FORMAT,
        "n_clusters": model.n_clusters,
        "input_features_dim": model.input_features_dim,
        "reduced_dims": None if model.space.components is None else model.space.dim,
        "features": None if model.features is None else dataclasses.asdict(model.features),
        "feature_weights": model.space.weights.cpu().tolist(),
        "centers_file": CENTRES,
        "centers_sha256": sha256,
    }
    storage.write_json(os.path.join(folder, DESCRIPTION), said)
    return dataclasses.replace(model, sha256=sha256)


def load(folder: str) -> ClusterModel:
    """Return the model of a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = os.path.join(folder, DESCRIPTION)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is missing; fit a token model with `consort fit`, or correct the path")
    return load_files(path, os.path.join(folder, CENTRES))


def load_files(description: str, centres: str) -> ClusterModel:
    """Return the model of two files wherever they are; the second is not read where the first holds the centres.

    Raises:
        FileNotFoundError: the tensors are missing.
        ValueError: one is damaged, or they are of different fits.
    """
    said = storage.read_json(description)
    if not isinstance(said, dict) or "n_clusters" not in said:
        raise ValueError(f"{os.path.basename(description)}: describes no token model; fit one with `consort fit`")
    if "cluster_centers" in said:
        return _published(said, description)
    if said.get("format") != _FORMAT:
        raise ValueError(f"{os.path.basename(description)}: of an unknown format; fit the model again")
    if not os.path.isfile(centres):
        raise FileNotFoundError(f"{centres} is missing beside {os.path.basename(description)}; fit the model again")
    sha256 = storage.sha256_of(centres)
    if sha256 != said.get("centers_sha256"):
        raise ValueError(f"{os.path.basename(centres)}: not of the same fit as {DESCRIPTION}; fit the model again")
    tensors = storage.read_tensors(centres)
    if not {"features", "feature_weights"} <= set(said) or "centers" not in tensors:
        raise ValueError(f"{os.path.basename(description)}: lacks a part of the model; fit the model again")
    features = None if said["features"] is None else read_definition(said["features"])
    space = Space(torch.tensor(said["feature_weights"]), tensors.get("pca_mean"), tensors.get("pca_components"))
    return _check(ClusterModel(tensors["centers"], space, features, said, sha256), said["n_clusters"], description)


def _published(said: tp.Dict[str, tp.Any], path: str) -> ClusterModel:
    try:
        centres = torch.tensor(said["cluster_centers"], dtype=torch.float32)
        space = Space(torch.ones(centres.shape[1]))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{os.path.basename(path)}: cluster_centers is no table of numbers") from error
    facts = {key: value for key, value in said.items() if key != "cluster_centers"}
    return _check(ClusterModel(centres, space, None, facts, storage.sha256_of(path)), said["n_clusters"], path)


def _check(model: ClusterModel, count: tp.Any, path: str) -> ClusterModel:
    if tuple(model.centres.shape) != (count, model.space.dim) or not bool(model.centres.isfinite().all()):
        raise ValueError(
            f"{os.path.basename(path)}: promises {count} centres of {model.space.dim} finite numbers, "
            f"and has {list(model.centres.shape)}; fit the model again"
        )
    return model
