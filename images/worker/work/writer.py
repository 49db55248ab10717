"""The thread that writes behind the models, and commits in small groups."""

import dataclasses
import errno
import queue
import threading
import time
import typing as tp

from worker.errors import OutputError
from worker.protocol import Channel, Event, Failure, Record
from worker.work import store

_GROUP = 64  # arrays that are committed together at most
_SECONDS = 1.0  # the longest that a finished array waits for its commit
_WHOLE_FOLDER = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT)


class Finished(tp.NamedTuple):
    """An encoded array with its record, whose hash and size the writer fills in."""

    record: Record
    data: bytes


_Job = tp.Tuple[tp.List[Finished], float]


class Writer:
    """Writes what `put` brings; a record is emitted only after its array has its final name."""

    def __init__(self, root: str, channel: Channel, tag: str) -> None:
        self._root = root
        self._channel = channel
        self._tag = tag
        self._count = 0
        self._jobs: queue.Queue[tp.Optional[_Job]] = queue.Queue(4)
        self._error: tp.Optional[OutputError] = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, finished: tp.List[Finished], seconds: float) -> None:
        """Queue all outputs of one item and model.

        Raises:
            OutputError: the output folder became unusable.
        """
        self._raise()
        self._jobs.put((finished, seconds))

    def close(self) -> None:
        """Commit everything that was put, and end the thread.

        Raises:
            OutputError: the output folder became unusable.
        """
        self._jobs.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._write_all()
        except Exception as error:  # `put` must not wait for a thread that is gone
            self._error = OutputError(getattr(error, "errno", None), "cannot go on writing: {}".format(error))
            while self._jobs.get() is not None:
                pass

    def _write_all(self) -> None:
        stored: tp.List[store.Stored] = []
        events: tp.List[Event] = []
        began = time.monotonic()
        while True:
            job = self._next(began + _SECONDS if stored else None)
            if isinstance(job, tuple) and self._error is None:
                if not stored:
                    began = time.monotonic()
                self._write(job, stored, events)
            if stored and (not isinstance(job, tuple) or len(stored) >= _GROUP or time.monotonic() - began > _SECONDS):
                self._commit(stored, events)
                stored, events = [], []
            if job is None:
                return

    def _next(self, deadline: tp.Optional[float]) -> tp.Union[_Job, str, None]:
        try:
            return self._jobs.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return "time"

    def _write(self, job: _Job, stored: tp.List[store.Stored], events: tp.List[Event]) -> None:
        finished, seconds = job
        mine: tp.List[store.Stored] = []
        wrote: tp.List[Event] = []
        try:
            for record, data in finished:
                self._count += 1
                entry = store.write(self._root, record.path, data, "{}-{}".format(self._tag, self._count))
                mine.append(entry)
                full = dataclasses.replace(record, sha256=entry.sha256, bytes=entry.bytes)
                wrote.append(
                    Event("wrote", item=record.item, model=record.model, record=full, seconds=round(seconds, 3))
                )
        except OutputError as error:
            store.discard(mine)
            self._give_up(error, finished[0].record)
        else:
            stored += mine
            events += wrote

    def _give_up(self, error: OutputError, record: Record) -> None:
        """A name that is too long fails its item alone; a full or read-only disk ends the shard."""
        if error.errno in _WHOLE_FOLDER:
            self._error = error
            return
        failure = Failure(record.item, record.model, "write", str(error.strerror), "")
        self._channel.emit(Event("failed", item=record.item, model=record.model, failure=failure), durable=True)

    def _commit(self, stored: tp.List[store.Stored], events: tp.List[Event]) -> None:
        try:
            store.commit(stored)
            self._channel.emit(*events, durable=True)
        except OSError as error:
            self._error = OutputError(error.errno, error.strerror or str(error))
