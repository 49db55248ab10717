"""MusiCNN: music features and tags of patches of three seconds."""

import dataclasses
import math
import os
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, Windows
from worker.networks import log_mel

_FRAMES = 187  # mel frames in one patch
_HOP = log_mel.HOP_LENGTH
_CONTEXT = log_mel.FFT_LENGTH // 2  # samples before and behind, where the centred transform reaches
_ARCHIVE = "musicnn-0.1.0-py3-none-any.whl"
_ARCHIVE_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
_SHA256 = {
    "MTT_musicnn/.index": "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
    "MTT_musicnn/.data-00000-of-00001": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
    "MSD_musicnn/.index": "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
    "MSD_musicnn/.data-00000-of-00001": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
    "MTT_vgg/.index": "4b0d3d2d02bbe0919c063c1fb74bfa9018ac3517e362d681b07444d4207a5f5f",
    "MTT_vgg/.data-00000-of-00001": "458f5c8bcecc086a3bba3dce83809df6da6e0a3560a59ddd84711bf3d5fd8303",
    "MSD_vgg/.index": "50e499238457558bba9f34f8b84d4afb8279afd43520cdf0a4fdf805a49c9ca3",
    "MSD_vgg/.data-00000-of-00001": "9683d756b8311146534f333502ebf4a2a78a3e320c54ab0411dff6186d8375fc",
}
_ENDINGS = (".index", ".data-00000-of-00001")
_NAMES = ("MTT_musicnn", "MSD_musicnn", "MTT_vgg", "MSD_vgg")


@dataclasses.dataclass
class Musicnn(Extractor):
    """MusiCNN and its VGG baseline, trained to tag MagnaTagATune (MTT) or the Million Song Dataset (MSD).

    Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging" (2019);
    code and weights ISC. Audio shorter than 2.976 s is repeated to that length, as in training. What
    follows the last whole patch is dropped, as upstream does. Audio of more than about 21 dB over full
    scale does not fit float16, in which the models read their spectrogram, and gives values that are
    not finite.
    """

    environment = "legacy-py37"
    sample_rate = 16000
    pooling = "mean"
    batch_size = 1  # larger batches gain nothing on a CPU: 20 ms a patch at 1, 2 and 4
    seconds_per_minute = 0.5

    checkpoint: str = "MTT_musicnn"  # or MSD_musicnn, MTT_vgg, MSD_vgg, or a musicnn_keras .h5 file
    hop_seconds: tp.Optional[float] = None  # between patches; None: one patch, 2.992 s

    def __post_init__(self) -> None:
        if not self._own_file and self.checkpoint not in _NAMES:
            raise ValueError(
                "checkpoint: {!r} is not one of {}; others, such as MSD_musicnn_big, are given as the "
                "path of their .h5 file".format(self.checkpoint, ", ".join(_NAMES))
            )
        if self.hop_seconds is not None and not (math.isfinite(self.hop_seconds) and self._hop_frames >= 1):
            raise ValueError(
                f"hop_seconds: {self.hop_seconds!r} holds no mel frame; give at least 0.032 (seconds), "
                "or null for whole patches"
            )

    def outputs(self) -> tp.Tuple[Output, ...]:
        size = None if self._own_file else 256 if self._is_vgg else 753
        tags = None if self._own_file else 50
        what = "last pooling layer" if self._is_vgg else "mean of the feature maps over the patch"
        outputs = (
            self._output("embedding", size, what, varies=True),
            self._output("taggram", tags, "probability of each tag, in upstream's order"),
        )
        if self._is_vgg:
            return outputs
        units = None if self._own_file else 200
        return (
            *outputs,
            self._output("max_pool", size, "maximum of the feature maps over the patch"),
            self._output("penultimate", units, "layer before the tags"),
        )

    def framing(self) -> Windows:
        window, hop = _FRAMES * _HOP + _CONTEXT, self._hop_frames * _HOP
        return Windows(window, hop, _CONTEXT, _CONTEXT, pad_start="reflect", pad_end="reflect", short="repeat")

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        if self._own_file:
            return (Checkpoint("file", self.checkpoint, "", self.checkpoint, "", "unknown"),)
        return tuple(
            Checkpoint("pypi", "musicnn", "0.1.0", "musicnn/" + name, sha256, "ISC", _ARCHIVE, _ARCHIVE_SHA256)
            for name, sha256 in _SHA256.items()
            if name.startswith(self.checkpoint + "/")
        )

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        # TensorFlow 2.7 reads this once, when it is imported; its own kernels take twice the time.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        from legacy_models import musicnn

        if self._own_file:
            weights = musicnn.read_h5(files[self.checkpoint])
        else:
            weights = musicnn.read_checkpoint(self._find_prefix(files))
        if musicnn.is_vgg(weights) != self._is_vgg:
            raise ValueError(
                f"{self.checkpoint}: a VGG's file has 'vgg' in its name and a MusiCNN's has not; rename it, "
                "as outputs are declared by the name"
            )
        self._network = musicnn.build(weights, batch_size=1)

    def extract(self, batch: Batch) -> Arrays:
        patches = log_mel.transform(batch.wave[:, 0])
        # Patch by patch, so that the bytes of a patch do not depend on the size of the batch.
        rows = [self._network(patch[None]) for patch in patches]
        features = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        # A ReLU can turn an infinite band into plausible numbers: what was too loud must stay visible.
        broken = ~np.isfinite(patches).all(axis=(1, 2))
        wanted = [name for name in features if self.request.wants(name)]
        return {name: np.where(broken[:, None], np.float32(np.nan), features[name])[:, None] for name in wanted}

    def describe(self) -> tp.Dict[str, tp.Any]:
        return {"onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"}

    def _output(self, name: str, size: tp.Optional[int], doc: str, varies: bool = False) -> Output:
        rate, start = self.sample_rate / (_HOP * self._hop_frames), (_FRAMES - 1) / 2 * _HOP / self.sample_rate
        axes, shape = ("time", "feature"), (None, size)
        return Output(name, axes, shape, doc, poolable=True, frame_rate=rate, start=start, varies=varies)

    @property
    def _own_file(self) -> bool:
        return self.checkpoint.endswith(".h5")

    @property
    def _is_vgg(self) -> bool:
        # The file's sizes can be read inside the environment alone, so that its name has to say the kind.
        return "vgg" in os.path.basename(self.checkpoint).lower()

    @property
    def _hop_frames(self) -> int:
        """Upstream's `time_to_frames(hop_seconds, n_fft=512)`: a centred frame needs its first half."""
        if self.hop_seconds is None:
            return _FRAMES
        return (int(self.hop_seconds * self.sample_rate) - _CONTEXT) // _HOP

    def _find_prefix(self, files: tp.Mapping[str, str]) -> str:
        """Return what the names of the two files of the checkpoint have in common."""
        index, data = (files[f"musicnn/{self.checkpoint}/{end}"] for end in _ENDINGS)
        prefix = index[: -len(_ENDINGS[0])]
        if prefix + _ENDINGS[1] != data:
            raise ValueError(f"{index} and {data} must lie in one folder; pull the weights again")
        return prefix
