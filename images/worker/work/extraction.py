"""One loaded model over one item: window -> batch -> extract -> stitch -> finish."""

import threading
import typing as tp

import numpy as np

from worker.audio import spool
from worker.errors import ArrayError, Interrupted
from worker.extractor import Arrays, Batch, Extractor, Stream, WholeFile, Windows
from worker.work import windows


def extract(
    extractor: Extractor, wave: np.ndarray, batch_size: tp.Optional[int], scratch: str, stop: threading.Event
) -> tp.Tuple[Arrays, bool]:
    """Run one model over one item.

    Args:
        extractor: loaded.
        wave: float32 `[C, T]` at the extractor's sample rate.
        batch_size: windows per call; None takes the extractor's own.
        scratch: folder for what is too large for memory.
        stop: set when the work must end between two batches.

    Returns:
        The outputs of the whole item, and whether it was too short and had to be padded.

    Raises:
        Interrupted: `stop` was set.
    """
    framing = extractor.framing()
    if isinstance(framing, WholeFile):
        batch = Batch(wave[np.newaxis], np.array([wave.shape[1]]), np.array([0]))
        return _outputs(extractor, {name: rows[0] for name, rows in extractor.extract(batch).items()}), False
    if isinstance(framing, Stream):
        return _outputs(extractor, _stream(extractor, framing, wave, scratch, stop)), False
    return _windows(extractor, framing, wave, batch_size, scratch, stop)


def _stream(extractor: Extractor, framing: Stream, wave: np.ndarray, scratch: str, stop: threading.Event) -> Arrays:
    """Run the blocks in order; memory is that of one block and of the frames, which may go to the disk."""
    joined: Arrays = {}
    position, total = 0, framing.frames(wave.shape[1])
    state: tp.Dict[str, tp.Any] = {}
    for begin in range(0, wave.shape[1], framing.block):
        if stop.is_set():
            raise Interrupted
        first = max(0, begin - framing.left)
        part = np.ascontiguousarray(wave[np.newaxis, :, first : begin + framing.block], np.float32)
        batch = Batch(part, np.array([part.shape[2]]), np.array([first]), state)
        arrays = {name: rows[0] for name, rows in extractor.extract(batch).items()}
        if not joined:
            joined = {n: spool.allocate((total,) + v.shape[1:], v.dtype, scratch) for n, v in arrays.items()}
        count = framing.frames(begin + part.shape[2] - (begin - first)) - position
        _hold(arrays, joined, (count,))
        for name, values in arrays.items():
            joined[name][position : position + count] = values
        position += count
    return joined


def _windows(
    extractor: Extractor,
    framing: Windows,
    wave: np.ndarray,
    batch_size: tp.Optional[int],
    scratch: str,
    stop: threading.Event,
) -> tp.Tuple[Arrays, bool]:
    cut = windows.cut(wave, framing)
    joined: Arrays = {}
    position = 0
    for batch, counts in windows.batches(cut, batch_size or extractor.batch_size):
        if stop.is_set():
            raise Interrupted
        arrays = extractor.extract(batch)
        for name, values in arrays.items():
            if not position:
                joined[name] = spool.allocate((sum(cut.frames),) + values.shape[2:], values.dtype, scratch)
        _hold(arrays, joined, (len(batch.lengths), framing.frames(framing.window)))
        for row, count in enumerate(counts):
            for name, values in arrays.items():
                joined[name][position : position + count] = values[row, :count]
            position += count
    return _outputs(extractor, joined), cut.padded


def _hold(arrays: Arrays, joined: Arrays, size: tp.Tuple[int, ...]) -> None:
    """Refuse what numpy would broadcast, or leave as zeros, without a word."""
    if set(arrays) != set(joined):
        names = [", ".join(sorted(group)) for group in (arrays, joined)]
        raise ArrayError("the extractor returned {}, and before: {}".format(*names))
    for name, values in arrays.items():
        expected = size + joined[name].shape[1:]
        if values.shape != expected:
            raise ArrayError("{} has shape {}, expected {}".format(name, values.shape, expected))


def _outputs(extractor: Extractor, frames: Arrays) -> Arrays:
    outputs = extractor.finish(frames)
    missing = sorted(extractor.request.outputs - set(outputs))
    if missing:
        raise ArrayError("the extractor did not return {}".format(", ".join(missing)))
    return outputs
