"""EnCodec: the latents and the codes of a neural audio codec."""

import dataclasses
import os
import typing as tp

import numpy as np

from worker.extractor import (
    Arrays,
    Batch,
    Checkpoint,
    Extractor,
    Output,
    Stream,
    Windows,
    choice,
    first_there,
    refuse_unknown,
)
from worker.request import WindowChoice

_HOP = 320  # samples per frame, of both models
_BLOCK = 48000  # samples: 2 s at 24 kHz, the chunk of 1 s at 48 kHz
_WARM_UP = 960  # samples of a block that its convolutions hear again
_STRIDE = 47520  # samples between chunks of the 48 kHz model
_REVISIONS = {
    "facebook/encodec_24khz": "c1dbe2ae3f1de713481a3b3e7c47f357092ee040",
    "facebook/encodec_48khz": "c3def8e7185ac8c8efdce6eb8c4a651e487a503e",
}
_SHA256 = {"facebook/encodec_24khz": "37a7cb100f71a29e6c1d815aca8666a1d7ea8885ebe44c306c751a5103559d57"}
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first as published; an own folder may have either


@dataclasses.dataclass
class Encodec(Extractor):
    """The encoder of EnCodec: continuous latents, and the codes of its residual vector quantiser.

    Defossez, Copet, Synnaeve, Adi, "High Fidelity Neural Audio Compression", 2022. Code of upstream and
    weights: MIT (the hub's page states none). 75 frames per second at 24 kHz, 150 at 48 kHz.

    `context: continuous` gives what the 24 kHz model makes of the whole file, in bounded memory; the 48 kHz
    model hears chunks of 1 s, one every 0.99 s, each brought to equal loudness, and the short last one alone:
    zeros stand behind its frames, so chunks are not pooled; the frames of fragments are.
    With `context: fragment`, or a `window` (default: 5 s), every window is encoded on its own. Audio of any
    length is taken, silent audio too; only fragments are padded.
    """

    environment = "torch-cuda"
    takes_window = True
    seconds_per_minute = 5.0

    checkpoint: str = "facebook/encodec_24khz"  # facebook/encodec_48khz; an own folder with 24khz or 48khz in its name
    bandwidth: float = choice(6.0, 1.5, 3.0, 12.0, 24.0)  # kbit/s; sets how many codebooks there are
    context: str = choice("continuous", "fragment")
    channels: str = choice("model", "mono")  # mono: mixed, and given to both channels of the 48 kHz model
    average_codes: bool = False  # mean of the code indices over all windows: means nothing, kept for an old recipe

    def __post_init__(self) -> None:
        refuse_unknown(self.checkpoint, _REVISIONS, "folder", self.checkpoint)
        if self.checkpoint == "facebook/encodec_48khz" and self.bandwidth == 1.5:
            raise ValueError("bandwidth: the 48 kHz model has no 1.5; choose one of 3.0, 6.0, 12.0, 24.0")

    @property
    def sample_rate(self) -> int:  # type: ignore[override]
        """Hz, by the name of the checkpoint; `load` holds its configuration against it."""
        name = os.path.basename(self.checkpoint.rstrip("/"))
        return 48000 if "48khz" in name else 24000

    @property
    def audio_channels(self) -> int:  # type: ignore[override]
        """Two for the 48 kHz model unless `channels: mono` asks otherwise."""
        return 2 if self._is_stereo and self.channels == "model" else 1

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return latents first; with `average_codes` there are none."""
        axis = "chunk" if self.request.layout == "per-window" else "window"  # what is named "window" is cut into files
        if self.average_codes:
            doc = "mean code index over all windows, halves to even; lossy: indices are names, not numbers"
            return self._declare_codes(("codebook", "time"), doc), self._declare_starts(axis)
        if not self._fragments and not self._is_stereo:
            return self._declare_latents(("channel", "time")), self._declare_codes(("codebook", "time"))
        if not self._fragments:
            frames = Output("frames", ("chunk",), (None,), "frames of each chunk that are not filled up", "int32")
            per_chunk = self._declare_scale("chunk"), self._declare_starts("chunk"), frames
            latents = self._declare_latents(("chunk", "channel", "time"))
            return (latents, self._declare_codes(("codebook", "time")), *per_chunk)
        lead = ("window",) if self.request.layout == "per-window" else ()
        scale = (self._declare_scale(axis),) if self._is_stereo else ()
        latents = self._declare_latents((*lead, "channel", "time"))
        return (latents, self._declare_codes((*lead, "codebook", "time")), *scale, self._declare_starts(axis))

    def framing(self) -> tp.Union[Stream, Windows]:
        """Return blocks of 2 s, chunks of 1 s, or the windows of the job.

        Raises:
            ValueError: a window or its hop holds no whole number of frames, or `average_codes` has no windows.
        """
        memory = 3 * 4 * 128 * 60 * self.sample_rate // _HOP  # the latents as they are, joined, and encoded
        if self._fragments:
            window, hop = self._samples("seconds"), self._samples("hop_seconds")
            return Windows(window, hop, tail="keep", pad_end=self._window.pad, memory_per_minute=memory)
        if self.average_codes:
            raise ValueError("average_codes needs windows; add `context: fragment`, or a window")
        if self._is_stereo:
            return Windows(_BLOCK, _STRIDE, tail="every", memory_per_minute=memory)
        return Stream(block=_BLOCK, frame_hop=_HOP, left=_WARM_UP, memory_per_minute=memory)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        if self._own_folder:
            own = (_CONFIG, first_there(self.checkpoint, _WEIGHTS))
            return tuple(Checkpoint("folder", self.checkpoint, "", file, "", "unknown") for file in own)
        revision, licence = _REVISIONS[self.checkpoint], "MIT (the hub states none)"
        files = {_CONFIG: "", _WEIGHTS[0]: _SHA256.get(self.checkpoint, "")}
        return tuple(Checkpoint("hub", self.checkpoint, revision, *file, licence) for file in files.items())

    def flags(self) -> tp.Tuple[str, ...]:
        return ("lossy",) if self.average_codes else ()

    def describe(self) -> tp.Dict[str, tp.Any]:
        return {"backend": "own encoder in torch, kernels folded"}

    def uses_gpu(self) -> bool:
        return True

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Read the encoder, and the codebooks where codes are wanted.

        Raises:
            ValueError: the checkpoint is damaged, of another sample rate, or lacks the bandwidth.
        """
        from torch_models.encodec import codec, joining

        self._joining = joining
        config, weights = (files[file] for file in (_CONFIG, *_WEIGHTS) if file in files)
        quantize = self.request.wants("codes")
        self._codec = codec.load(config, weights, device, self.sample_rate, self.bandwidth, quantize)

    def extract(self, batch: Batch) -> Arrays:
        """Return the frames of a block `[1, T, ...]`, or one entry `[B, 1, ...]` for each window."""
        if isinstance(self.framing(), Stream):
            warm_up = _WARM_UP if batch.starts[0] else 0
            found = self._codec.encode_block(batch.wave, tp.cast(tp.Dict[str, tp.Any], batch.state), warm_up)
            return {name: values.transpose(0, 2, 1) for name, values in self._wanted_frames(found).items()}
        here = np.minimum(batch.lengths, 1)
        if self.average_codes:
            arrays = {"codes": tp.cast(np.ndarray, self._codec.encode_pieces(batch.wave, here).codes)}
        else:
            lengths = here * batch.wave.shape[2] if self._fragments else batch.lengths
            found = self._codec.encode(batch.wave, lengths)
            arrays = {**self._wanted_frames(found), "scale": found.scale}
        arrays["frames"] = (-(-batch.lengths // _HOP)).astype(np.int32)
        arrays["starts"] = (batch.starts / self.sample_rate).astype(np.float32)
        return {name: values[:, np.newaxis] for name, values in arrays.items()}

    def finish(self, frames: Arrays) -> Arrays:
        """Return the declared outputs, with windows joined where the layout asks for one array per item."""
        if "frames" not in frames:
            return {name: values.T for name, values in frames.items()}
        found = dict(frames)
        if self.average_codes:
            found["codes"] = self._joining.average(frames["codes"])
        elif not self._fragments and "codes" in frames:
            found["codes"] = self._joining.join_chunks(frames["codes"], frames["frames"])
        elif self._fragments and self.request.layout != "per-window":
            hop = self._samples("hop_seconds") // _HOP
            for name in ("latents", "codes"):
                if name in frames:
                    found[name] = self._joining.join_windows(frames[name], frames["frames"], hop)
        return {output.name: found[output.name] for output in self.outputs() if output.name in found}

    @property
    def _own_folder(self) -> bool:
        return self.checkpoint not in _REVISIONS

    @property
    def _is_stereo(self) -> bool:
        return self.sample_rate == 48000

    @property
    def _fragments(self) -> bool:
        return self.context == "fragment" or self.request.window is not None

    @property
    def _window(self) -> WindowChoice:
        return self.request.window or WindowChoice(5.0)

    def _wanted_frames(self, found: tp.Any) -> Arrays:
        return {name: getattr(found, name) for name in ("latents", "codes") if self.request.wants(name)}

    def _samples(self, key: str) -> int:
        """Return the length of the windows, or the step between them, in samples."""
        seconds = getattr(self._window, key) or self._window.seconds
        samples = round(seconds * self.sample_rate)
        if self.average_codes:
            return max(1, samples)
        if samples % _HOP or not samples:
            below, rate = samples // _HOP, self.sample_rate // _HOP
            near = " or ".join("{:.10g}".format(round(n / rate, 6)) for n in (below, below + 1) if n)
            raise ValueError(
                "{}: {} s is no whole number of frames of 1/{} s; take {}".format(key, seconds, rate, near)
            )
        return samples

    def _declare_latents(self, axes: tp.Tuple[str, ...]) -> Output:
        size = None if self._own_folder else 128
        doc = "output of the encoder before quantisation"
        return self._declare("latents", axes, size, doc, poolable=axes[0] != "chunk", varies=True)

    def _declare_codes(self, axes: tp.Tuple[str, ...], doc: str = "index in each codebook, coarse to fine") -> Output:
        books = int(self.bandwidth * 100 * _HOP // self.sample_rate)  # 10 bits per frame and book of 1024
        return self._declare("codes", axes, None if self._own_folder else books, doc, dtype="int16")

    def _declare(self, name: str, axes: tp.Tuple[str, ...], size: tp.Optional[int], doc: str, **more: tp.Any) -> Output:
        """Return an output whose last axes are features of `size`, and time."""
        shape = (None,) * (len(axes) - 2) + (size, None)
        rate = self.sample_rate / _HOP
        return Output(name, axes, shape, doc, frame_rate=rate, start=0.5 / rate, **more)

    def _declare_scale(self, axis: str) -> Output:
        return Output("scale", (axis,), (None,), "RMS that the audio of each {} was divided by".format(axis))

    def _declare_starts(self, axis: str) -> Output:
        return Output("starts", (axis,), (None,), "where each window or chunk begins, in seconds")
