"""The life of a shard of kind `fit`: its model learns from arrays, and says what has come of it."""

import contextlib
import fcntl
import logging
import os
import threading
import typing as tp

from worker import catalog
from worker.errors import Interrupted, OutputError
from worker.extractor import Lesson
from worker.protocol import EXIT_DEVICE, EXIT_PERMANENT, Channel, Event, Shard, exit_code, one_line
from worker.work import devices
from worker.work.pipeline import Roots

_LOG = logging.getLogger("worker")


def run(shard: Shard, roots: Roots, channel: Channel, stop: threading.Event, device: devices.Device) -> int:
    """Let the model of `shard` learn on `device`, and return the worker's exit code."""
    (task,) = shard.tasks
    assert shard.fit is not None

    def say(text: str, share: tp.Optional[float]) -> None:
        if share is None:
            channel.emit(Event("note", model=task.name, message=text))
        else:
            channel.emit(Event("progress", model=task.name, message=text, share=round(share, 4)))

    try:
        extractor = catalog.build(task.extractor, task.params, task.request(device.kind))
        with _alone(roots.output):
            outcome = extractor.fit(shard.fit, task.files, Lesson(roots.audio, roots.output, say, stop))
    except Interrupted as error:
        return exit_code(error)
    except (ValueError, MemoryError, FileNotFoundError) as error:
        channel.emit(Event("model_refused", model=task.name, message=one_line(error)))
        return EXIT_PERMANENT
    except OSError as error:
        channel.emit(Event("output_lost", message=one_line(error)))
        return exit_code(error)
    except RuntimeError as error:
        if device.kind == "cpu" or not (devices.is_broken(error) or devices.is_out_of_memory(error)):
            raise
        _LOG.exception("the GPU failed")
        channel.emit(Event("device_lost", model=task.name, message=one_line(error)))
        return EXIT_DEVICE
    channel.emit(Event("fitted", model=task.name, outcome=outcome), Event("finished"), durable=True)
    return exit_code(None)


@contextlib.contextmanager
def _alone(folder: str) -> tp.Iterator[None]:
    """Hold a folder against a second worker, such as one whose host died and which is still writing its state."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError("another fit is writing here; wait for it") from error
    else:
        yield
    finally:
        os.close(descriptor)
