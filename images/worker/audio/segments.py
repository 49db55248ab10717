"""A segment of a decoded file: cut at the file's own rate, and only then resampled, as if it were a file of its own."""

import contextlib
import typing as tp

import numpy as np

from worker.audio import decode, spool, waves
from worker.audio.decode import Decoded
from worker.audio.waves import AS_DECODED
from worker.errors import AudioError, NotFiniteError
from worker.segment import Segment

_SLACK = 1000  # part of a second by which times in a table, which are rounded, may pass the end


def cut(
    whole: Decoded,
    segment: Segment,
    formats: tp.Iterable[waves.Format],
    scratch: str,
    spool_bytes: int = spool.LIMIT,
) -> Decoded:
    """Return a part of a file as `decode` would return a file of the same samples.

    Args:
        whole: of the format `AS_DECODED`; it stays open.
        segment: cut at round(seconds * rate).
        formats: of every wave wanted.
        scratch: folder for waves above `spool_bytes`.
        spool_bytes: size above which one wave moves to an unlinked file.

    Raises:
        AudioError: it lies beyond the end of the file, or holds no sample, or one that is not finite.
    """
    begin, end = _bounds(whole, segment)
    wave, source = whole.wave(*AS_DECODED), (whole.sample_rate, whole.channels)
    recorder = waves.Recorder(source, formats, scratch, spool_bytes)
    with contextlib.closing(recorder):
        try:
            for first in range(begin, end, decode.BLOCK):
                recorder.push(np.ascontiguousarray(wave[:, first : min(end, first + decode.BLOCK)].T))
            made = recorder.finish()
        except NotFiniteError as error:
            raise AudioError("nonfinite", "{}: {}".format(segment, error), whole.sha256) from None
        of_file = set(whole.flags).difference(waves.LEVELS, () if segment.end is None else ("truncated",))
        return Decoded(
            sha256=whole.sha256,
            duration=(end - begin) / whole.sample_rate,
            sample_rate=whole.sample_rate,
            channels=whole.channels,
            decoder=whole.decoder,
            flags=sorted(of_file.union(recorder.meter.flags())),
            declared=_declared(whole, segment, begin, end),
            peak=recorder.meter.shown_peak,
            samples=recorder.meter.sha256,
            _waves=made,
        )


def _declared(whole: Decoded, segment: Segment, begin: int, end: int) -> tp.Optional[float]:
    """Return the seconds that a file of its samples would declare, or of all that this one declares from there on."""
    if whole.declared is None:
        return None
    rest = max(0.0, whole.declared - begin / whole.sample_rate)
    return rest if segment.end is None else (end - begin) / whole.sample_rate


def _bounds(whole: Decoded, segment: Segment) -> tp.Tuple[int, int]:
    """Return its first sample and that behind its last one."""
    total = whole.wave(*AS_DECODED).shape[1]
    begin, end = segment.samples(whole.sample_rate)
    if begin >= total or (end is not None and end > total + whole.sample_rate // _SLACK):
        said = "{} lies beyond the end of the file, which is {:.3f} s long".format(segment, whole.duration)
        raise AudioError("decode", said, whole.sha256)
    end = total if end is None else min(end, total)
    if end <= begin:
        raise AudioError("empty", "{} holds no sample at {} Hz".format(segment, whole.sample_rate), whole.sha256)
    return begin, end
