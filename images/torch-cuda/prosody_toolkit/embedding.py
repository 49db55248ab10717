"""What is made of the features of one item: tokens, and a vector."""

import typing as tp

import numpy as np
import torch

from prosody_toolkit import cluster_files, clustering, definition, devices, features, summary
from prosody_toolkit.cluster_files import ClusterModel
from prosody_toolkit.encoder import ProsodicSequenceEncoder


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
            definition.refuse_others(self._model.features, definition.of_settings(settings), clusters[0])
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
            arrays["embedding"] = summary.summarize(found, voiced, arrays.get("tokens"), count)
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
