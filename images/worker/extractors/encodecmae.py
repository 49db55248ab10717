"""EnCodecMAE: general audio features of a transformer over log mel frames."""

import dataclasses
import typing as tp

from worker.extractor import Arrays, Batch, Checkpoint, Output, Windows, own_file, refuse_unknown
from worker.layered import LayeredExtractor, find_layers

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
class Encodecmae(LayeredExtractor):
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

    checkpoint: str = (
        "mel256-ec-base_st"  # another published mel256 model, or the path of an own .pt file, or of its folder
    )
    # 0 is the output of the first block, -1 that of the last, normalised; a list or "all" gives an axis of layers
    layer: tp.Union[str, tp.List[int], int] = -1

    def __post_init__(self) -> None:
        refuse_unknown(self.checkpoint, _SIZES, "file", self.checkpoint)
        if isinstance(self.layer, str) and self.layer != "all":
            raise ValueError("layer: {!r} is neither a whole number, nor a list of them, nor all".format(self.layer))
        if isinstance(self.layer, list) and not self.layer:
            raise ValueError("layer: the list is empty; name at least one layer, or all")
        if not self._own:
            self._find_layers(_SIZES[self.checkpoint][0])

    def outputs(self) -> tp.Tuple[Output, ...]:
        count, size = (None, None) if self._own else _SIZES[self.checkpoint]
        # The frame rate is that over any whole number of chunks; see the class.
        return self._declare(self.layer, count, size, frame_rate=75.0, start=318.5 / self.sample_rate)

    def framing(self) -> Windows:
        return Windows(window=96000, hop=96000, frame_length=637, frame_hop=318, least=_LEAST)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the one file; at the root of the hub's repository, where upstream's `hub.py` looks it up by name."""
        if self._own:
            return (own_file(self.checkpoint, ".pt"),)
        licence = "MIT by its document; the repository states none"
        return (Checkpoint("hub", "lpepino/encodecmae-v2", "main", self.checkpoint + ".pt", "", licence),)

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the weights.

        Raises:
            ValueError: the file is no mel256 checkpoint, or has not the layers that are asked for.
        """
        from torch_models.encodecmae import network

        (file,) = files.values()
        encoder = network.load(file, device)
        layers, size = encoder.sizes.layers, encoder.sizes.dim
        if not self._own and (layers, size) != _SIZES[self.checkpoint]:
            words = "{}: has {} layers of {} features, not those of {}; give it as a path"
            raise ValueError(words.format(file, layers, size, self.checkpoint))
        self._indices = self._find_layers(layers)
        self._run = encoder.run_together if device == "cuda" else encoder.run_each

    def extract(self, batch: Batch) -> Arrays:
        """Return {"embedding": float32 [B, 300, D]}, or [B, 300, L, D] of several layers."""
        return self._compute(batch)

    @property
    def _several(self) -> bool:
        return not isinstance(self.layer, int)

    def _find_layers(self, count: int) -> tp.List[int]:
        """Return the layers asked for as indices from 0 in a network of `count`."""
        words = "{} has {} layers, 0 to {} or -{} to -1".format(self.checkpoint, count, count - 1, count)
        return find_layers(self.layer, count, "layer", words)
