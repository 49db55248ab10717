"""From the blocks of one decoder to every wave that models want: mix, resample, keep, look at the level."""

import hashlib
import math
import tempfile
import typing as tp

import numpy as np
import soxr

from worker import protocol
from worker.errors import NotFiniteError

Format = tp.Tuple[int, int]  # sample rate in Hz, channels
AS_DECODED: Format = (0, 0)  # the samples themselves, of all channels, whatever they are: what segments are cut from
LEVELS = ("clipped", "over_range", "silent")  # flags that a meter gives

QUIET = 2.0**-15  # one step of 16-bit audio: below it there is nothing to hear
FULL_SCALE = 32767.0 / 32768.0  # the largest positive value of 16-bit audio
LOUDEST = 4.0  # 12 dB above full scale: a higher peak is no overshoot, and the models were not trained on it
IMPOSSIBLE = 1e5  # a higher one can only be integers that were written as floats
_FLAT = 3  # samples in a row at one height that count as clipping; a normalised peak has one


class Meter:
    """Watches the level of a stream, so that flags depend on the file and not on who asked for it."""

    def __init__(self) -> None:
        self.frames = 0
        self.silent = True
        self.clipped = False
        self.peak = 0.0  # the largest magnitude; full scale is 1
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the samples as they were decoded, float32: equal for copies in other lossless formats."""
        return self._digest.hexdigest()

    @property
    def shown_peak(self) -> float:
        """The peak to six digits, as records have it."""
        return float("{:.6g}".format(self.peak))

    @property
    def over_range(self) -> bool:
        """Whether it is louder than audio is."""
        return self.peak > LOUDEST

    def flags(self) -> tp.List[str]:
        """Return those of `LEVELS` that are true of what was measured."""
        return [flag for flag in LEVELS if getattr(self, flag)]

    def measure(self, block: np.ndarray, mono: np.ndarray) -> None:
        """Look at one block `[n, C]` as decoded, and at `mono` `[n]`, the mean of its channels.

        Opposite channels that cancel are silence to most models.
        """
        self.frames += len(block)
        self.silent = self.silent and float(np.max(np.abs(mono))) < QUIET
        self._digest.update(np.ascontiguousarray(block, "<f4").data)
        peak = max(float(block.max()), -float(block.min()))
        self.peak = max(self.peak, peak)
        if not self.clipped and peak >= FULL_SCALE:
            self.clipped = _has_plateau(np.abs(block))


def _has_plateau(height: np.ndarray) -> bool:
    """Return whether samples in a row are at full scale, or above and flat: floats may swing beyond it unharmed."""
    level = height >= FULL_SCALE
    run = level[: len(level) - _FLAT + 1]
    for shift in range(1, _FLAT):
        ahead = height[shift : len(height) - _FLAT + 1 + shift]
        run = run & (np.abs(ahead - height[: len(ahead)]) <= QUIET) & level[shift : len(ahead) + shift]
    return bool(run.any())


class Track:
    """One format: takes mixed blocks at the stream's rate and keeps them at its own; beyond a limit in a file."""

    def __init__(self, source_rate: int, target: Format, folder: str, limit: int) -> None:
        """Prepare the resampler; equal rates leave every sample untouched. `limit` is in bytes."""
        rate, self._channels = target
        self._folder, self._limit = folder, limit
        self._blocks: tp.List[np.ndarray] = []
        self._bytes = 0
        self._file: tp.Optional[tp.IO[bytes]] = None
        self._resampler: tp.Optional[soxr.ResampleStream] = None
        if rate != source_rate:
            # soxr's own HQ: the same numbers whether it is fed whole files or blocks
            self._resampler = soxr.ResampleStream(source_rate, rate, self._channels, dtype="float32", quality="HQ")

    def push(self, block: np.ndarray) -> None:
        """Take float32 `[n, C]`."""
        block = np.ascontiguousarray(block)
        self._keep(block if self._resampler is None else self._resampler.resample_chunk(block))

    def finish(self) -> np.ndarray:
        """Flush the resampler and return everything as read-only float32 `[C, T]`; a memory map if it is in a file."""
        empty = np.zeros((0, self._channels), np.float32)
        if self._resampler is not None:
            self._keep(self._resampler.resample_chunk(empty, last=True))
        if self._file is not None:
            self._file.flush()
            shape = (self._bytes // 4 // self._channels, self._channels)
            return tp.cast(np.ndarray, np.memmap(self._file, np.float32, "r", shape=shape).T)
        wave = np.ascontiguousarray((np.concatenate(self._blocks) if self._blocks else empty).T)
        wave.flags.writeable = False
        return wave

    def close(self) -> None:
        """Let go of the file, which has no name; a map that is in use keeps its contents."""
        if self._file is not None:
            self._file.close()

    def _keep(self, block: np.ndarray) -> None:
        self._blocks.append(block)
        self._bytes += block.nbytes
        if self._file is None and self._bytes > self._limit:
            self._file = tempfile.TemporaryFile(prefix=".wave-", dir=self._folder)  # noqa: SIM115 - see close
        if self._file is not None:
            for kept in self._blocks:
                self._file.write(np.ascontiguousarray(kept).data)
            self._blocks = []


class Recorder:
    """Feeds all tracks from one pass over a decoded stream."""

    def __init__(self, source: Format, formats: tp.Iterable[Format], folder: str, limit: int) -> None:
        """Prepare one track per format.

        Args:
            source: sample rate and channels of the decoded stream.
            formats: what models want; a mono stream is resampled once for mono and stereo alike.
            folder: for waves above `limit` bytes.
            limit: bytes per wave that stay in memory.
        """
        self.sample_rate, self.channels = source
        self.formats = sorted(set(formats))
        self.meter = Meter()
        self._weights = np.full(self.channels, 1.0 / self.channels, np.float32)
        self._as_decoded = self.formats == [AS_DECODED]
        targets = set(map(self._target, self.formats))
        self._tracks = {target: Track(self.sample_rate, target, folder, limit) for target in sorted(targets)}

    def push(self, block: np.ndarray) -> None:
        """Take float32 `[n, C]`, n > 0.

        Mono is the mean of all channels, as a dot product: exact for two channels of 16 bits, and 30
        times faster than `mean`. Stereo from more than two channels is the first two, front left and
        right in nearly every layout, as audiocraft's `convert_audio_channels` and demucs do it.

        Raises:
            NotFiniteError: with the time of the first such sample.
        """
        if self._as_decoded:  # what each segment holds is looked at when it is cut
            self.meter.frames += len(block)
            for track in self._tracks.values():
                track.push(block)
            return
        with np.errstate(all="ignore"):
            finite = math.isfinite(float(block.max()) - float(block.min()))
        if not finite:
            first = int(np.argmin(np.isfinite(block).all(axis=1)))
            seconds = (self.meter.frames + first) / self.sample_rate
            raise NotFiniteError("NaN or infinite samples, the first at {:.3f} s".format(seconds))
        mono = block[:, 0] if self.channels == 1 else block @ self._weights
        self.meter.measure(block, mono)
        for (_, channels), track in self._tracks.items():
            track.push(mono[:, None] if channels == 1 else block[:, :2])

    def _target(self, wanted: Format) -> Format:
        """Return the format of the track that a wanted one is made of."""
        rate, channels = wanted
        return (self.sample_rate, self.channels) if wanted == AS_DECODED else (rate, min(channels, self.channels))

    def finish(self) -> tp.Dict[Format, np.ndarray]:
        """Return float32 `[C, T]` for every format; they outlive the recorder.

        Raises:
            NotFiniteError: the samples are integers.
        """
        if self.meter.peak > IMPOSSIBLE:
            raise NotFiniteError(protocol.say_peak(self.meter.peak))
        done = {target: track.finish() for target, track in self._tracks.items()}
        waves = {}
        for rate, channels in self.formats:
            wave = done[self._target((rate, channels))]
            if channels > len(wave):
                wave = np.broadcast_to(wave, (channels, wave.shape[1]))
            waves[rate, channels] = wave
        return waves

    def close(self) -> None:
        """Release the temporary files; maps of them stay valid."""
        for track in self._tracks.values():
            track.close()
