"""Cut `[C, T]` into `[B, C, W]` windows.

All geometry is in samples and lives in `worker.extractor.Windows`; nothing here knows a model.
"""

import typing as tp

import numpy as np

from worker.extractor import Batch, Windows


class Cut(tp.NamedTuple):
    """The windows of one item: where each begins in the extended audio and how much of it is real."""

    wave: np.ndarray  # float32 [C, T], long enough for one frame
    framing: Windows
    starts: np.ndarray  # int64 [N], relative to the audio; the first is -left
    lengths: np.ndarray  # int64 [N]
    padded: bool  # the audio was shorter than one frame

    @property
    def frames(self) -> tp.List[int]:
        """Whole frames of each window."""
        return [self.framing.frames(int(length)) for length in self.lengths]


def cut(wave: np.ndarray, framing: Windows) -> Cut:
    """Return the windows of `wave` `[C, T]`, T > 0: at least one.

    Audio that is too short is repeated or padded first, as `framing.short` says.
    """
    size = framing.frame_length or framing.window
    step = framing.frame_hop or framing.hop
    kept = framing.tail in ("keep", "every")
    shortest = max(1, (framing.least or (1 if kept else size)) - framing.left - framing.right)
    padded = wave.shape[1] < shortest
    if padded:
        wave = _lengthen(wave, shortest, framing.short)
    total = framing.left + wave.shape[1] + framing.right
    offsets = np.arange(_count(framing, total), dtype=np.int64) * framing.hop
    lengths = np.minimum(framing.window, total - offsets)
    if framing.tail == "pad":
        whole = size - (size - lengths) // step * step
        lengths = np.minimum(framing.window, np.maximum(size, whole))
    padded = padded or (framing.tail == "keep" and int(lengths[-1]) < framing.window)
    return Cut(wave, framing, offsets - framing.left, lengths, padded)


def _count(framing: Windows, total: int) -> int:
    """Return how many windows an extended audio of `total` samples has."""
    size = framing.frame_length or framing.window
    if framing.tail == "every":
        return -(-total // framing.hop)
    if framing.tail == "drop":
        return 1 + max(0, (total - (framing.least or size)) // framing.hop)
    step = framing.frame_hop or framing.hop
    covered = framing.window if framing.tail == "keep" else size + (framing.frames(framing.window) - 1) * step
    return 1 + max(0, -(-(total - covered) // framing.hop))


def batches(windows: Cut, size: int) -> tp.Iterator[tp.Tuple[Batch, tp.List[int]]]:
    """Yield batches of exactly `size` windows with the number of valid frames of each real one.

    The last batch is filled up with silent windows of no frames: a fixed shape keeps the bytes of an
    item independent of how many windows happen to share its last batch.
    """
    frames = windows.frames
    for begin in range(0, len(frames), size):
        real = len(frames[begin : begin + size])
        channels = windows.wave.shape[0]
        wave = np.zeros((size, channels, windows.framing.window), np.float32)
        lengths = np.zeros(size, np.int64)
        starts = np.zeros(size, np.int64)
        lengths[:real] = windows.lengths[begin : begin + real]
        starts[:real] = windows.starts[begin : begin + real]
        for row in range(real):
            _fill(wave[row], windows.wave, int(starts[row]), windows.framing)
        yield Batch(wave, lengths, starts), frames[begin : begin + real]


def _fill(row: np.ndarray, wave: np.ndarray, start: int, framing: Windows) -> None:
    """Copy the samples `start .. start + window` of the extended audio into `row` `[C, W]`."""
    samples = wave.shape[1]
    stop = start + row.shape[1]
    begin, end = max(start, 0), min(stop, samples)
    if begin < end:
        row[:, begin - start : end - start] = wave[:, begin:end]
    if start < 0 and framing.pad_start == "reflect":
        _copy_mirrored(row, wave, start, min(0, stop), start)
    limit = stop if framing.tail in ("keep", "every") else min(stop, samples + framing.right)
    if limit > samples and framing.pad_end == "reflect":
        _copy_mirrored(row, wave, max(start, samples), limit, start)


def _copy_mirrored(row: np.ndarray, wave: np.ndarray, begin: int, end: int, start: int) -> None:
    """Fill positions outside the audio by mirroring it about its first and last sample."""
    period = max(1, 2 * (wave.shape[1] - 1))
    position = np.abs(np.arange(begin, end)) % period
    row[:, begin - start : end - start] = wave[:, np.minimum(position, period - position)]


def _lengthen(wave: np.ndarray, length: int, how: str) -> np.ndarray:
    if how == "repeat":
        return np.tile(wave, (1, -(-length // wave.shape[1])))[:, :length]
    longer = np.zeros((wave.shape[0], length), np.float32)
    longer[:, : wave.shape[1]] = wave
    return longer
