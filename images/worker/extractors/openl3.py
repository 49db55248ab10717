"""OpenL3: embeddings of one-second windows, learnt from sound and image together."""

import dataclasses
import math
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, Windows, choice, is_own, own_file
from worker.networks import openl3_features

_WINDOW = openl3_features.WINDOW
_POSITIONS = 12  # fields of the feature maps: 6144 = 12 * 512
_FEATURES = 512
_SIZES = (512, 6144)
_ENDINGS = (".h5", ".h5.gz")
_FOLDER = "https://raw.githubusercontent.com/marl/openl3/models/"
_BLOBS = {
    "mel256_music": "15e483646fa3d4091a463f0affbb706e6bbbb098",
    "mel256_env": "34dbd7a91cdd2de6a3d6d036ac0a24d27d78e3cc",
    "mel128_music": "73ff29de441865318c4b3a3f98c40763c4773e7c",
    "mel128_env": "8c3dfee140f7776373841e5938a3e76c54f28942",
    "linear_music": "4e2e61beb17865481c8b8791c72eac8307e2753a",
    "linear_env": "7837407f033f3564c7e8d53fc4a4241fe160478b",
}


@dataclasses.dataclass
class Openl3(Extractor):
    """Embeddings of music or environmental sound, trained on which sound belongs to which image.

    Cramer, Wu, Salamon, Bello, "Look, Listen and Learn More: Design Choices for Deep Audio Embeddings",
    ICASSP 2019. Weights of version 0.4.0: MIT, the licence of their repository. Every window is computed on
    its own; the last one is filled with zeros, as is audio shorter than a window. Silence has an embedding
    like any other sound. One pass of the network gives both sizes: the 512 are maxima of the 6144.
    """

    environment = "tf-cuda"
    sample_rate = openl3_features.SAMPLE_RATE
    batch_size = 8  # a CPU takes them one by one, so that only a GPU minds
    seconds_per_minute = 150.0

    input_repr: str = choice("mel256", "mel128", "linear")
    content_type: str = choice("music", "env")
    embedding_size: int = choice(512, 6144)
    hop_seconds: float = 0.1  # between windows
    center: bool = True  # frame i is centred on i * hop_seconds; otherwise it starts there
    backend: str = choice("auto", "reference")
    checkpoint: tp.Optional[str] = None  # the published one; or the path of an .h5 or .h5.gz file, or of its folder

    def __post_init__(self) -> None:
        if not math.isfinite(self.hop_seconds) or self._hop < 1:
            raise ValueError(
                "hop_seconds: {!r} holds no sample at 48 kHz; give seconds, such as 0.1".format(self.hop_seconds)
            )
        if self.checkpoint is not None and not is_own(self.checkpoint, _ENDINGS):
            raise ValueError(
                "checkpoint: {!r} is not the path of an .h5 or .h5.gz file or of its folder; published weights are "
                "chosen by input_repr and content_type".format(self.checkpoint)
            )

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return the embedding of the chosen size, then that of the other one."""
        (other,) = (size for size in _SIZES if size != self.embedding_size)
        return self._output("embedding", self.embedding_size), self._output("embedding_{}".format(other), other)

    def framing(self) -> Windows:
        """Return windows of one second; the first one is centred on the first sample, or begins there."""
        return Windows(window=_WINDOW, hop=self._hop, left=_WINDOW // 2 if self.center else 0, tail="pad")

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        if self.checkpoint is not None:
            return (own_file(self.checkpoint, *_ENDINGS),)
        variant = "{}_{}".format(self.input_repr, self.content_type)
        file, licence = "openl3_audio_{}-v0_4_0.h5.gz".format(variant), "MIT (of its repository)"
        return (Checkpoint("url", "openl3", "v0_4_0", file, "", licence, git_blob=_BLOBS[variant], url=_FOLDER + file),)

    def describe(self) -> tp.Dict[str, tp.Any]:
        return {"backend": "reference"}

    def uses_gpu(self) -> bool:
        return True

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Build the network from the weights.

        Raises:
            ValueError: the weights are damaged or of another network.
        """
        from tf_models import devices, openl3

        devices.choose(device)
        (file,) = files.values()
        layout = openl3_features.LAYOUTS[self.input_repr]
        self._network = openl3.build(openl3.read_h5(file), layout.bands, layout.frames)
        self._stft = openl3.stft
        self._together = device != "cpu"

    def extract(self, batch: Batch) -> Arrays:
        """Return the wanted of "embedding" and "embedding_<size>", float32 [B, 1, size]."""
        maxima = np.zeros((len(batch.wave), _POSITIONS, _FEATURES), np.float32)
        for rows in self._split(batch):
            maxima[rows] = self._compute_maxima(batch.wave[rows, 0])
        by_size = {_FEATURES: maxima.max(axis=1), _POSITIONS * _FEATURES: maxima.reshape(len(maxima), -1)}
        wanted = [output for output in self.outputs() if self.request.wants(output.name)]
        return {output.name: by_size[output.shape[1] or 0][:, np.newaxis] for output in wanted}

    def _compute_maxima(self, waves: np.ndarray) -> np.ndarray:
        """Return the twelve feature vectors [B, 12, 512] of windows [B, 48000]."""
        spectrograms = openl3_features.transform(waves, self.input_repr, self._stft)
        maxima: np.ndarray = self._network(spectrograms)
        # A ReLU can turn a spectrogram that overflowed into plausible numbers: it must stay visible.
        maxima[~np.isfinite(spectrograms).all(axis=(1, 2))] = np.nan
        return maxima

    def _split(self, batch: Batch) -> tp.List[slice]:
        """Return the rows of each call: on a CPU one, so that bytes do not depend on the size of the batch."""
        if self._together:
            return [slice(0, len(batch.wave))]
        return [slice(row, row + 1) for row, length in enumerate(batch.lengths) if length]

    def _output(self, name: str, size: int) -> Output:
        doc = "maxima of the feature maps over {}".format("the window" if size == _FEATURES else "12 parts of it")
        rate, start = self.sample_rate / self._hop, 0.0 if self.center else _WINDOW / 2 / self.sample_rate
        axes, shape = ("time", "feature"), (None, size)
        return Output(name, axes, shape, doc, poolable=True, frame_rate=rate, start=start, varies=True)

    @property
    def _hop(self) -> int:
        """Samples between windows, rounded down as the published implementation does."""
        return int(self.hop_seconds * self.sample_rate)
