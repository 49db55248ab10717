"""Models that give the activations of those layers of a transformer that a job names."""

import abc
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, is_own

Layers = tp.Union[str, tp.List[int], int]  # "all", or numbers from 0 on, or backwards from -1


class LayeredExtractor(Extractor):
    """Windows in; `embedding` out, `[T, D]` of one layer, or `[L, T, D]` of several."""

    checkpoint: str
    _indices: tp.List[int]  # of the layers, once loaded
    _run: tp.Callable[[np.ndarray, np.ndarray, tp.Sequence[int]], np.ndarray]  # float32 [B, T, L, D], once loaded

    @property
    @abc.abstractmethod
    def _several(self) -> bool:
        """Whether there is an axis of layers."""

    @property
    def _own(self) -> bool:
        return is_own(self.checkpoint)

    def uses_gpu(self) -> bool:
        return True

    def _compute(self, batch: Batch) -> Arrays:
        found = self._run(batch.wave[:, 0], batch.lengths, self._indices)
        return {"embedding": found if self._several else found[:, :, 0]}

    def finish(self, frames: Arrays) -> Arrays:
        """Return "embedding" with its layers first."""
        found = frames["embedding"]
        return {"embedding": np.moveaxis(found, 1, 0) if self._several else found}

    def _declare(
        self, layers: Layers, count: tp.Optional[int], size: tp.Optional[int], frame_rate: float, start: float
    ) -> tp.Tuple[Output, ...]:
        """Return `embedding` of a network with `count` layers of `size` features; None where its file decides."""
        if isinstance(layers, list):
            count = len(layers)
        lead, counts = (("layer",), (count,)) if self._several else ((), ())
        axes, shape = (*lead, "time", "feature"), (*counts, None, size)
        doc = "activations of the transformer, of one layer or of each that is asked for"
        return (Output("embedding", axes, shape, doc, poolable=True, frame_rate=frame_rate, start=start, varies=True),)


def find_layers(layers: Layers, count: int, name: str, there_are: str) -> tp.List[int]:
    """Return layers as indices from 0 in a network of `count`.

    Raises:
        ValueError: there is no such layer; with the `name` of the parameter, and what layers `there_are`.
    """
    if isinstance(layers, str):
        return list(range(count))
    asked = [layers] if isinstance(layers, int) else layers
    for one in asked:
        if not -count <= one < count:
            raise ValueError("{}: {} is out of range; {}".format(name, one, there_are))
    return [one % count for one in asked]
