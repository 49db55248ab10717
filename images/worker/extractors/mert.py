"""MERT: music features of a transformer over raw audio."""

import dataclasses
import typing as tp

from worker.extractor import Arrays, Batch, Checkpoint, Output, Windows, first_there, refuse_unknown
from worker.layered import LayeredExtractor, find_layers

_FIELD = 400  # samples that one frame hears
_HOP = 320  # samples between frames
_STEP = 120000  # samples between windows: 5 s, the length of the excerpts in training
_SETTINGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("pytorch_model.bin", "model.safetensors")  # the first as published; an own folder may have either
_REVISIONS = {
    "m-a-p/MERT-v1-95M": "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
    "m-a-p/MERT-v1-330M": "af10da70c94a0c849de9cc94b83e12769c4db499",
}
_SIZES = {"m-a-p/MERT-v1-95M": (12, 768), "m-a-p/MERT-v1-330M": (24, 1024)}  # layers, features


@dataclasses.dataclass
class Mert(LayeredExtractor):
    """Features of music, trained by masked prediction of acoustic and musical teachers.

    Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training", ICLR 2024.
    Weights: CC-BY-NC-4.0, no commercial use; upstream's code: Apache-2.0.

    The audio is cut into windows of 5 s that do not see each other, one frame for every whole 320 samples:
    75 per second. A window ends 80 samples behind the next one's beginning, where its last frame ends, and
    behind the end of the audio stand zeros. Audio shorter than one frame is padded with zeros; silent audio
    is computed. Where the checkpoint asks for it (95M), each window is brought to mean 0 and variance 1.
    """

    environment = "torch-cuda"
    sample_rate = 24000
    pooling = "mean"
    seconds_per_minute = 17.0  # 330M: 44

    checkpoint: str = "m-a-p/MERT-v1-95M"  # m-a-p/MERT-v1-330M, or the path of an own folder
    # 0 is the input of the first block, -1 the output of the last; several, or "all", give an axis of layers
    layers: tp.Union[str, tp.List[int]] = dataclasses.field(default_factory=lambda: [-1])

    def __post_init__(self) -> None:
        refuse_unknown(self.checkpoint, _SIZES, "folder", self.checkpoint.rstrip("/").rpartition("/")[2])
        if isinstance(self.layers, str) and self.layers != "all":
            raise ValueError("layers: {!r} is neither a list of whole numbers nor all".format(self.layers))
        if not self.layers:
            raise ValueError("layers: the list is empty; name at least one layer, or all")
        if len(set(self.layers)) < len(self.layers) and self.layers != "all":
            raise ValueError("layers: {} names a layer twice".format(self.layers))
        if not self._own:
            self._find_layers(_SIZES[self.checkpoint][0])

    def outputs(self) -> tp.Tuple[Output, ...]:
        blocks, size = (None, None) if self._own else _SIZES[self.checkpoint]
        count = None if blocks is None else blocks + 1
        start = _FIELD / 2 / self.sample_rate  # frame k hears the samples from 320 k to 320 k + 400
        return self._declare(self.layers, count, size, frame_rate=self.sample_rate / _HOP, start=start)

    def framing(self) -> Windows:
        """Return windows of 375 frames, whose last one ends in the next window."""
        over = _FIELD - _HOP
        return Windows(_STEP + over, _STEP, right=over, tail="drop", frame_length=_FIELD, frame_hop=_HOP)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        if self._own:
            own = (*_SETTINGS, first_there(self.checkpoint, _WEIGHTS))
            return tuple(Checkpoint("folder", self.checkpoint, "", file, "", "unknown") for file in own)
        revision = _REVISIONS[self.checkpoint]
        return tuple(
            Checkpoint("hub", self.checkpoint, revision, file, "", "CC-BY-NC-4.0", commercial=False)
            for file in (*_SETTINGS, _WEIGHTS[0])
        )

    def describe(self) -> tp.Dict[str, tp.Any]:
        return {"backend": "HuBERT of transformers, own loop, fused attention"}

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the network as far as its layers are wanted.

        Raises:
            ValueError: the checkpoint is damaged, is not what its name promises, or lacks a layer.
        """
        from torch_models import mert

        (weights,) = (files[file] for file in _WEIGHTS if file in files)
        network = mert.load(*(files[file] for file in _SETTINGS), weights, device)
        sizes = network.layers, network.dim
        if not self._own and sizes != _SIZES[self.checkpoint]:
            words = "{}: has {} layers of {} features, not those of {}; give its folder as a path"
            raise ValueError(words.format(files[_SETTINGS[0]], *sizes, self.checkpoint))
        self._indices = self._find_layers(network.layers)
        network.keep(max(self._indices))
        self._run = network.run_together if device == "cuda" else network.run_each

    def extract(self, batch: Batch) -> Arrays:
        """Return {"embedding": float32 [B, 375, D]}, or [B, 375, L, D] of several layers."""
        return self._compute(batch)

    @property
    def _several(self) -> bool:
        return self.layers == "all" or len(self.layers) > 1

    def _find_layers(self, count: int) -> tp.List[int]:
        """Return the layers asked for, from 0 to `count`, the number of blocks."""
        words = "{} has 0 to {}, or -{} to -1".format(self.checkpoint, count, count + 1)
        found = find_layers(self.layers, count + 1, "layers", words)
        for number, index in enumerate(found):
            if index in found[:number]:
                raise ValueError("layers: {} names layer {} of {} twice".format(self.layers, index, self.checkpoint))
        return found
