"""The thread that decodes ahead of the models: each file once, for all the models that lack it."""

import itertools
import os
import queue
import threading
import typing as tp

from worker import segment
from worker.audio import segments
from worker.audio.decode import Decoded, decode
from worker.audio.waves import AS_DECODED
from worker.errors import AudioError, Interrupted
from worker.protocol import Channel, Event, Item, one_line

_AHEAD = 2  # decoded items that may wait: enough to hide decoding, few enough to bound memory
_PATIENCE = 0.5  # seconds between two looks whether the host is still there

Result = tp.Union[Decoded, AudioError]
Formats = tp.Sequence[tp.Tuple[int, int]]  # (sample rate, channels)
_Entry = tp.Union[tp.Tuple[Item, Result], Exception, None]  # None: the end


def decode_ahead(
    work: tp.Sequence[tp.Tuple[Item, Formats]],
    root: str,
    scratch: str,
    deadline: float,
    channel: Channel,
    stop: threading.Event,
) -> tp.Iterator[tp.Tuple[Item, Result]]:
    """Yield every item of `work` with its audio, or with the error that it gives instead; a few are ready before.

    Args:
        work: items in order, each with the formats that its models want.
        root: the audio folder.
        scratch: folder for waves that are too large for memory.
        deadline: seconds that one file may take.
        channel: gets `opened` for every item.
        stop: set when the work must end.

    Raises:
        Interrupted: `stop` was set; also while a file hangs.
    """
    ready: queue.Queue[_Entry] = queue.Queue(_AHEAD)

    def decode_all() -> None:
        try:
            for _, group in itertools.groupby(work, key=lambda one: one[0].file):
                for entry in _results(list(group), root, scratch, deadline, channel, stop):
                    ready.put(entry)
        except Exception as error:  # nobody may wait for a thread that is gone
            ready.put(error)
        else:
            ready.put(None)

    threading.Thread(target=decode_all, daemon=True).start()
    while True:
        entry = _next(ready, stop)
        if entry is None:
            return
        if isinstance(entry, Exception):
            raise entry
        yield entry


def _next(ready: "queue.Queue[_Entry]", stop: threading.Event) -> _Entry:
    while not stop.is_set():
        try:
            entry = ready.get(timeout=_PATIENCE)
        except queue.Empty:
            continue
        if not stop.is_set():
            return entry
    raise Interrupted


def _results(
    group: tp.List[tp.Tuple[Item, Formats]],
    root: str,
    scratch: str,
    deadline: float,
    channel: Channel,
    stop: threading.Event,
) -> tp.Iterator[tp.Tuple[Item, Result]]:
    """Yield the items of one file, which is decoded once: all of them are cut out of it as soon as one is a segment."""
    parted = any(item.segment is not None for item, _ in group)
    whole: tp.Optional[Result] = None
    for item, formats in group:
        if stop.is_set():
            return
        channel.emit(Event("opened", item=item.id))
        if not parted:
            yield item, _decode(item, formats, root, scratch, deadline)
            continue
        if whole is None:
            whole = _decode(item, [AS_DECODED], root, scratch, deadline)
        yield item, whole if isinstance(whole, AudioError) else _cut(whole, item, formats, scratch)


def _cut(whole: Decoded, item: Item, formats: Formats, scratch: str) -> Result:
    try:
        return segments.cut(whole, segment.read(item.segment or "0-"), formats, scratch)
    except AudioError as error:
        return AudioError(error.kind, "{}: {}".format(item.file, error), error.sha256)
    except (MemoryError, OSError):
        return AudioError("memory", "{}: not enough room to cut it".format(item.file), whole.sha256)


def _decode(item: Item, formats: Formats, root: str, scratch: str, deadline: float) -> Result:
    try:
        path = _place(item, root)
        return decode(path, formats, scratch, item.size, item.mtime_ns, deadline=deadline)
    except AudioError as error:
        return error
    except MemoryError:
        return AudioError("memory", "{}: not enough memory to decode it".format(item.id))
    except Exception as error:
        return AudioError("decode", "{}: {}".format(item.id, one_line(error)))


def _place(item: Item, root: str) -> str:
    """Return where a file is; what the plan has not seen there is not opened, and links are seen through."""
    path, base = item.target or os.path.join(root, item.file), os.path.realpath(root)
    real = os.path.realpath(path)
    if item.target is not None and real != path:
        raise AudioError("changed", "{}: its link led elsewhere when the job was planned; run again".format(item.id))
    if item.target is None and os.path.commonpath([real, base]) != base:
        raise AudioError("unreadable", "{}: its link leads out of the audio folder".format(item.id))
    return path
