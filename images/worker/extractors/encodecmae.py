"""EnCodecMAE: general audio features of a transformer over log mel frames."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, Windows, is_own

_LEAST = 2049  # samples: the published model passes over a rest that is shorter
_SIZES = {  # layers, features
    "mel256-ec-base_st": (10, 768),
    "mel256-ec-large_st": (20, 1024),
    "mel256-ec-base_st-nopn": (10, 768),
    "mel256-ec-small": (5, 768),
    "mel256-ec-base": (10, 768),
    "mel256-ec-base-as": (10, 768),
    "mel256-ec-base-fma": (10, 768),
    "mel256-ec-base-ll": (10, 768),
    "mel256-ec-large": (20, 1024),
}


@dataclasses.dataclass
class Encodecmae(Extractor):
    """Features for speech, music and environmental sound, trained by masked prediction of EnCodec's codes.

    Pepino, Riera, Ferrer, "EnCodecMAE: Leveraging neural codecs for universal audio representation
    learning" (2023); the second version of the models. Weights: MIT by its document; the repository
    states none.

    The audio is cut into chunks of 4 s that do not see each other, 300 frames each; what remains at the
    end and is not longer than 2048 samples (85 ms) is dropped, as upstream does. Audio that is itself so
    short is padded with zeros. Within a chunk frames are 318 samples (13.25 ms) apart where the frame rate
    of 75 Hz says 320: a frame's centre is up to 25 ms earlier than its time says, at the end of a chunk.
    """

    environment = "torch-cuda"
    sample_rate = 24000
    pooling = "mean"
    seconds_per_minute = 12.0

    checkpoint: str = "mel256-ec-base_st"  # another published mel256 model, or the path of an own .pt file
    # 0 is the output of the first block, -1 that of the last, normalised; a list or "all" gives an axis of layers
    layer: tp.Union[str, tp.List[int], int] = -1

    def __post_init__(self) -> None:
        if not self._own_file and self.checkpoint not in _SIZES:
            raise ValueError(
                "checkpoint: {!r} is not one of {}; an own file is given as a path, such as ./{}".format(
                    self.checkpoint, ", ".join(_SIZES), self.checkpoint
                )
            )
        if isinstance(self.layer, str) and self.layer != "all":
            raise ValueError("layer: {!r} is neither a whole number, nor a list of them, nor all".format(self.layer))
        if isinstance(self.layer, list) and not self.layer:
            raise ValueError("layer: the list is empty; name at least one layer, or all")
        if not self._own_file:
            self._find_layers(_SIZES[self.checkpoint][0])

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `embedding` [T, D], or [L, T, D] when `layer` is a list or "all"."""
        count: tp.Optional[int] = None
        size: tp.Optional[int] = None
        if not self._own_file:
            count, size = _SIZES[self.checkpoint]
        if isinstance(self.layer, list):
            count = len(self.layer)
        return (
            Output(
                name="embedding",
                axes=("layer", "time", "feature") if self._several else ("time", "feature"),
                shape=(count, None, size) if self._several else (None, size),
                doc="activations of the transformer, of one layer or of each that is asked for",
                poolable=True,
                frame_rate=75.0,  # over any whole number of chunks; see the class
                start=318.5 / self.sample_rate,
                varies=True,
            ),
        )

    def framing(self) -> Windows:
        """Return chunks of 4 s that touch."""
        return Windows(window=96000, hop=96000, frame_length=637, frame_hop=318, least=_LEAST)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the one file; at the root of the hub's repository, where upstream's `hub.py` looks it up by name."""
        if self._own_file:
            return (Checkpoint("file", self.checkpoint, "", self.checkpoint, "", "unknown"),)
        return (
            Checkpoint(
                kind="hub",
                name="lpepino/encodecmae-v2",
                revision="main",
                file=self.checkpoint + ".pt",
                sha256="",
                licence="MIT by its document; the repository states none",
            ),
        )

    def uses_gpu(self) -> bool:
        """Return True."""
        return True

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the weights.

        Raises:
            ValueError: the file is no mel256 checkpoint, or has not the layers that are asked for.
        """
        from torch_models.encodecmae import network

        (checkpoint,) = self.checkpoints()
        encoder = network.load(files[checkpoint.file], device)
        sizes = encoder.sizes
        if not self._own_file and (sizes.layers, sizes.dim) != _SIZES[self.checkpoint]:
            raise ValueError(
                "{}: has {} layers of {} features, not those of {}; give it as a path".format(
                    files[checkpoint.file], sizes.layers, sizes.dim, self.checkpoint
                )
            )
        self._layers = self._find_layers(sizes.layers)
        self._run = encoder.run_together if device == "cuda" else encoder.run_each

    def extract(self, batch: Batch) -> Arrays:
        """Return {"embedding": float32 [B, 300, D]}, or [B, 300, L, D] of several layers."""
        found = self._run(batch.wave[:, 0], batch.lengths, self._layers)
        return {"embedding": found if self._several else found[:, :, 0]}

    def finish(self, frames: Arrays) -> Arrays:
        """Return "embedding" with its layers first."""
        found = frames["embedding"]
        return {"embedding": np.moveaxis(found, 1, 0) if self._several else found}

    @property
    def _own_file(self) -> bool:
        return is_own(self.checkpoint)

    @property
    def _several(self) -> bool:
        return not isinstance(self.layer, int)

    def _find_layers(self, count: int) -> tp.List[int]:
        """Return the layers asked for as indices from 0 in a network of `count`."""
        if isinstance(self.layer, str):
            return list(range(count))
        asked = [self.layer] if isinstance(self.layer, int) else self.layer
        for one in asked:
            if not -count <= one < count:
                raise ValueError(
                    "layer: {} is out of range; {} has {} layers, 0 to {} or -{} to -1".format(
                        one, self.checkpoint, count, count - 1, count
                    )
                )
        return [one % count for one in asked]
