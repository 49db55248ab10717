"""What is made of the features of one item: tokens, and a vector."""

import typing as tp

import numpy as np
import torch

from prosody_toolkit import cluster_files, clustering, devices, features
from prosody_toolkit.cluster_files import ClusterModel
from prosody_toolkit.encoder import ProsodicSequenceEncoder

_POWER = 4  # index of the feature that is there in unvoiced frames as well
_STATISTICS = ("mean", "std", "delta_mean", "delta_std")


class Describer:
    """Makes tokens and an embedding with the models that there are."""

    def __init__(
        self, settings: features.Settings, clusters: tp.Sequence[str], encoder: tp.Optional[str], device: str = "cpu"
    ) -> None:
        """Read the models.

        Args:
            settings: of the features that `describe` will get.
            clusters: paths of the two files of a token model, or none.
            encoder: path of a sequence encoder, or None for statistics.
            device: of the encoder.

        Raises:
            FileNotFoundError, ValueError: a model is missing, damaged, or fitted to something else.
        """
        self._settings = settings
        self._device = devices.choose(device)
        self._model: tp.Optional[ClusterModel] = None
        if clusters:
            self._model = cluster_files.load_files(*clusters)
            features.refuse_others(self._model.features, features.define_normalized(settings), clusters[0])
        self._encoder = self._read_encoder(encoder, self._model) if encoder and self._model else None

    def describe(self, found: np.ndarray, voiced: np.ndarray, embed: bool = True) -> tp.Dict[str, np.ndarray]:
        """Return `tokens` int32 `[T]` where there is a token model, and, to `embed`, `embedding` float32 `[D]`.

        The features `[T, 6]` that were `found` are as the settings say; `voiced` is `[T]`.
        """
        arrays: tp.Dict[str, np.ndarray] = {}
        if self._model is not None:
            vectors = found if self._settings.output_normalize else features.normalize(found)
            arrays["tokens"] = clustering.predict(self._model, vectors)[0]
        if embed and self._encoder is not None:
            with torch.inference_mode():
                sequence = torch.from_numpy(arrays["tokens"].astype(np.int64))[None].to(self._device)
                arrays["embedding"] = self._encoder(sequence)[0].cpu().numpy()
        elif embed:
            count = self._model.n_clusters if self._model else 0
            arrays["embedding"] = summarize(found, voiced, arrays.get("tokens"), count)
        return arrays

    def _read_encoder(self, path: str, model: ClusterModel) -> ProsodicSequenceEncoder:
        encoder, facts = ProsodicSequenceEncoder.load(path)
        if not facts.get("steps"):
            raise ValueError(f"{path}: was never trained; fit it with `consort fit --stage encoder`")
        if encoder.vocab_size != model.n_clusters + 2 or facts.get("clusters") not in ("", None, model.sha256):
            raise ValueError(
                f"{path}: was fitted to the tokens of another model than `clusters`; fit it again with "
                "`consort fit --stage encoder`"
            )
        return encoder.to(self._device)


def summary_names(features: tp.Sequence[str], n_clusters: int = 0) -> tp.List[str]:
    """Return what the values of `summarize` are, in their order."""
    statistics = [f"{feature}.{statistic}" for statistic in _STATISTICS for feature in features]
    return [*statistics, "voiced_ratio", *(f"token_{token}" for token in range(n_clusters))]


def summarize(
    features: np.ndarray, voiced: np.ndarray, tokens: tp.Optional[np.ndarray] = None, n_clusters: int = 0
) -> np.ndarray:
    """Return statistics of features `[T, D]` and tokens `[T]`, float32 `[4 D + 1 + K]`.

    Mean and standard deviation of each feature, the same of its deltas, the share of voiced frames, and the
    share of each of the K tokens, if there are any. Power is counted in all frames, the others where `voiced` `[T]`
    is not 0, as they are not there elsewhere. A delta is the change from a frame to the next, both of which count.
    What has no frames is 0.
    """
    voiced = np.asarray(voiced) > 0
    wide = features.astype(np.float64)
    columns = [
        _describe(wide[:, index], np.ones_like(voiced) if index == _POWER else voiced) for index in range(wide.shape[1])
    ]
    ratio = voiced.mean() if len(voiced) else 0.0
    parts = [np.array(columns).T.ravel(), np.array([ratio])]
    if tokens is not None:
        parts.append(np.bincount(tokens, minlength=n_clusters) / max(1, len(tokens)))
    return np.concatenate(parts).astype(np.float32)


def _describe(values: np.ndarray, counted: np.ndarray) -> tp.List[float]:
    """Return the `_STATISTICS` of one feature `[T]` over the frames that count."""
    kept = values[counted]
    deltas = np.diff(values)[counted[1:] & counted[:-1]]
    return [float(figure) for part in (kept, deltas) for figure in ((part.mean(), part.std()) if len(part) else (0, 0))]
