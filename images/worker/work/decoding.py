"""The thread that decodes ahead of the models: each file once, for all the models that lack it."""

import os
import queue
import threading
import typing as tp

from worker.audio.decode import Decoded, decode
from worker.errors import AudioError, Interrupted
from worker.protocol import Channel, Event, Item, one_line

_AHEAD = 2  # decoded items that may wait: enough to hide decoding, few enough to bound memory
_PATIENCE = 0.5  # seconds between two looks whether the host is still there

Result = tp.Union[Decoded, AudioError]
Formats = tp.Sequence[tp.Tuple[int, int]]  # (sample rate, channels)


class Decoder:
    """Yields every item with its audio, or with the error that it gives instead."""

    def __init__(self, root: str, scratch: str, deadline: float, channel: Channel, stop: threading.Event) -> None:
        """Prepare.

        Args:
            root: the audio folder.
            scratch: folder for waves that are too large for memory.
            deadline: seconds that one file may take.
            channel: gets `opened` for every item.
            stop: set when the work must end.
        """
        self._root = root
        self._scratch = scratch
        self._deadline = deadline
        self._channel = channel
        self._stop = stop
        self._queue: queue.Queue[tp.Union[tp.Tuple[Item, Result], Exception, None]] = queue.Queue(_AHEAD)

    def run(self, work: tp.Sequence[tp.Tuple[Item, Formats]]) -> tp.Iterator[tp.Tuple[Item, Result]]:
        """Decode `work` in order, a few items ahead of the caller.

        Raises:
            Interrupted: `stop` was set; also while a file hangs.
        """
        threading.Thread(target=self._decode_all, args=(work,), daemon=True).start()
        while True:
            entry = self._next()
            if entry is None:
                return
            if isinstance(entry, Exception):
                raise entry
            yield entry

    def _next(self) -> tp.Union[tp.Tuple[Item, Result], Exception, None]:
        while not self._stop.is_set():
            try:
                entry = self._queue.get(timeout=_PATIENCE)
            except queue.Empty:
                continue
            if not self._stop.is_set():
                return entry
        raise Interrupted

    def _decode_all(self, work: tp.Sequence[tp.Tuple[Item, Formats]]) -> None:
        try:
            for item, formats in work:
                if self._stop.is_set():
                    break
                self._channel.emit(Event("opened", item=item.id))
                self._queue.put((item, self._decode(item, formats)))
        except Exception as error:  # nobody may wait for a thread that is gone
            self._queue.put(error)
        else:
            self._queue.put(None)

    def _decode(self, item: Item, formats: Formats) -> Result:
        try:
            path = self._inside(item.id)
            return decode(path, formats, self._scratch, item.size, item.mtime_ns, deadline=self._deadline)
        except AudioError as error:
            return error
        except MemoryError:
            return AudioError("memory", "{}: not enough memory to decode it".format(item.id))
        except Exception as error:
            return AudioError("decode", "{}: {}".format(item.id, one_line(error)))

    def _inside(self, item: str) -> str:
        """Return the path of an item; a link must not lead out of the audio folder."""
        path, base = os.path.join(self._root, item), os.path.realpath(self._root)
        if os.path.commonpath([os.path.realpath(path), base]) != base:
            raise AudioError("unreadable", "{}: its link leads out of the audio folder".format(item))
        return path
