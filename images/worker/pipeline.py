"""The life of a shard: decode -> window -> batch -> extract -> stitch -> pool -> store.

Three threads overlap: one decodes ahead into a short queue, this one runs the models, one writes
behind. Each file is decoded once and fed to every model that lacks it; a file that fails is an event
and the next one goes on.
"""

import logging
import os
import queue
import threading
import time
import typing as tp

import numpy as np

from worker import audio, catalog, memory, pooling, spool, store, windows
from worker.extractor import Arrays, Batch, Extractor, Output, WholeFile
from worker.protocol import (
    EXIT_AGAIN,
    EXIT_NO_MODEL,
    EXIT_OK,
    EXIT_OUTPUT,
    Channel,
    Event,
    Failure,
    Item,
    Record,
    Shard,
    Task,
    key_of,
)
from worker.provenance import context_of
from worker.writer import Finished, Writer

_LOG = logging.getLogger("worker")
_AHEAD = 2  # decoded items that may wait: enough to hide decoding, few enough to bound memory
_PATIENCE = 0.5  # seconds between two looks whether the host is still there


class Roots(tp.NamedTuple):
    """Where things are inside the environment; the shard itself holds relative paths only."""

    audio: str
    output: str
    weights: str
    scratch: str


class Interrupted(Exception):
    """The host went away or asked to stop; what is finished is committed."""


class _Model(tp.NamedTuple):
    task: Task
    extractor: Extractor
    context: str


_Decoded = tp.Tuple[Item, tp.Union["audio.Audio", audio.AudioError]]
_Entry = tp.Union[_Decoded, Exception, None]  # an exception that ended the decoding; None at its end


def run(shard: Shard, roots: Roots, channel: Channel, stop: threading.Event) -> int:
    """Process every item of `shard` and return the worker's exit code."""
    try:
        models = {task.name: model for task in shard.tasks for model in [_load(shard, task, roots, channel)] if model}
        if not models:
            return EXIT_NO_MODEL
        _run_models(shard, models, roots, channel, stop)
    except Interrupted:
        return EXIT_AGAIN
    except OSError as error:  # of no file and no model: arrays, contexts or events cannot be written
        channel.emit(Event("failed", message=one_line(error)))
        return EXIT_OUTPUT
    channel.emit(Event("finished"), durable=True)
    return EXIT_OK


def _run_models(
    shard: Shard, models: tp.Dict[str, _Model], roots: Roots, channel: Channel, stop: threading.Event
) -> None:
    writer = Writer(roots.output, channel, "{}.{}".format(shard.id, shard.attempt))
    decoded: queue.Queue[_Entry] = queue.Queue(_AHEAD)
    ahead = threading.Thread(target=_decode_ahead, args=(shard, models, roots, channel, stop, decoded), daemon=True)
    ahead.start()
    try:
        _work(models, roots, channel, stop, decoded, writer, shard.memory)
    finally:
        writer.close()


def _load(shard: Shard, task: Task, roots: Roots, channel: Channel) -> tp.Optional[_Model]:
    channel.emit(Event("loading", model=task.name))
    began = time.monotonic()
    try:
        extractor = catalog.build(task.extractor, task.params, task.outputs)
        files = {
            name: path if os.path.isabs(path) else os.path.join(roots.weights, path)
            for name, path in task.files.items()
        }
        extractor.load(shard.device, files)
        context = context_of(shard, task, extractor, roots.output)
    except store.OutputError:
        raise
    except (Exception, SystemExit) as error:
        _LOG.exception("%s cannot load", task.name)
        channel.emit(Event("failed", model=task.name, message=one_line(error)))
        return None
    seconds = round(time.monotonic() - began, 3)
    _LOG.info("%s loaded in %.1f s", task.name, seconds)
    channel.emit(Event("loaded", model=task.name, seconds=seconds))
    return _Model(task, extractor, context)


def _decode_ahead(
    shard: Shard,
    models: tp.Dict[str, _Model],
    roots: Roots,
    channel: Channel,
    stop: threading.Event,
    decoded: "queue.Queue[_Entry]",
) -> None:
    try:
        _decode_all(shard, models, roots, channel, stop, decoded)
    except Exception as error:  # nobody may wait for a thread that is gone
        decoded.put(error)
    else:
        decoded.put(None)


def _decode_all(
    shard: Shard,
    models: tp.Dict[str, _Model],
    roots: Roots,
    channel: Channel,
    stop: threading.Event,
    decoded: "queue.Queue[_Entry]",
) -> None:
    for item in shard.items:
        formats = sorted(
            {(models[n].extractor.sample_rate, models[n].extractor.channels) for n in item.tasks if n in models}
        )
        if not formats:
            continue
        if stop.is_set():
            break
        channel.emit(Event("opened", item=item.id))
        result: tp.Union[audio.Audio, audio.AudioError]
        try:
            path = _inside(roots.audio, item.id)
            result = audio.decode(path, formats, roots.scratch, item.size, item.mtime_ns, deadline=shard.timeout)
        except audio.AudioError as error:
            result = error
        except MemoryError:
            result = audio.AudioError("memory", "{}: not enough memory to decode it".format(item.id))
        except Exception as error:
            result = audio.AudioError("decode", "{}: {}".format(item.id, one_line(error)))
        decoded.put((item, result))


def _inside(root: str, item: str) -> str:
    """Return the path of an item; a link must not lead out of the audio folder."""
    path, base = os.path.join(root, item), os.path.realpath(root)
    if os.path.commonpath([os.path.realpath(path), base]) != base:
        raise audio.AudioError("unreadable", "{}: its link leads out of the audio folder".format(item))
    return path


def _work(
    models: tp.Dict[str, _Model],
    roots: Roots,
    channel: Channel,
    stop: threading.Event,
    decoded: "queue.Queue[_Entry]",
    writer: Writer,
    limit: tp.Optional[int],
) -> None:
    while True:
        entry = _next(decoded, stop)
        if entry is None:
            return
        if isinstance(entry, Exception):
            raise entry
        item, source = entry
        chosen = [models[name] for name in item.tasks if name in models]
        if isinstance(source, audio.AudioError):
            _LOG.warning("%s: %s: %s", item.id, source.kind, source)
            channel.emit(
                *[_failed(item, model, source.kind, str(source), source.sha256) for model in chosen], durable=True
            )
            continue
        with source:
            channel.emit(Event("decoded", item=item.id, seconds=source.duration, source=_facts(item, source.sha256)))
            for model in chosen:
                channel.emit(Event("opened", item=item.id, model=model.task.name))
                _process(model, item, source, roots, channel, stop, writer, limit)


def _next(decoded: "queue.Queue[_Entry]", stop: threading.Event) -> _Entry:
    """Return what comes out of the queue, but never wait for a file that hangs when the host went away."""
    while not stop.is_set():
        try:
            entry = decoded.get(timeout=_PATIENCE)
        except queue.Empty:
            continue
        if not stop.is_set():
            return entry
    raise Interrupted


def _process(
    model: _Model,
    item: Item,
    source: "audio.Audio",
    roots: Roots,
    channel: Channel,
    stop: threading.Event,
    writer: Writer,
    limit: tp.Optional[int],
) -> None:
    began = time.monotonic()
    try:
        memory.refuse_what_cannot_fit(model.extractor, source.duration, limit)
        wave = source.wave(model.extractor.sample_rate, model.extractor.channels)
        frames, padded = extract(model.extractor, wave, model.task.batch_size, roots.scratch, stop)
        flags = source.flags + (["padded"] if padded else [])
        finished = [
            _finish(model, item, source, output, frames[output.name], flags)
            for output in catalog.wanted(model.extractor)
        ]
        writer.put(finished, time.monotonic() - began)
        _LOG.info("%s: %s took %.2f s", item.id, model.task.name, time.monotonic() - began)
    except (Interrupted, store.OutputError):
        raise
    except audio.AudioError as error:
        channel.emit(_failed(item, model, error.kind, str(error), source.sha256), durable=True)
    except store.NotFiniteError as error:
        channel.emit(_failed(item, model, "nonfinite", str(error), source.sha256), durable=True)
    except MemoryError as error:
        message = one_line(error) if str(error) else "not enough memory"
        channel.emit(_failed(item, model, "memory", message, source.sha256), durable=True)
    except (Exception, SystemExit) as error:
        _LOG.exception("%s: %s failed", item.id, model.task.name)
        channel.emit(_failed(item, model, "model", one_line(error), source.sha256), durable=True)


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
        _hold_batch(arrays, joined, (len(batch.lengths), framing.frames(framing.window)))
        for row, count in enumerate(counts):
            for name, values in arrays.items():
                joined[name][position : position + count] = values[row, :count]
            position += count
    return _outputs(extractor, joined), cut.padded


def _hold_batch(arrays: Arrays, joined: Arrays, size: tp.Tuple[int, int]) -> None:
    """Refuse what numpy would broadcast, or leave as zeros, without a word."""
    if set(arrays) != set(joined):
        names = [", ".join(sorted(group)) for group in (arrays, joined)]
        raise store.ArrayError("the extractor returned {}, and before: {}".format(*names))
    for name, values in arrays.items():
        expected = size + joined[name].shape[1:]
        if values.shape != expected:
            raise store.ArrayError("{} has shape {}, expected {}".format(name, values.shape, expected))


def _outputs(extractor: Extractor, frames: Arrays) -> Arrays:
    outputs = extractor.finish(frames)
    missing = sorted(extractor.wanted - set(outputs))
    if missing:
        raise store.ArrayError("the extractor did not return {}".format(", ".join(missing)))
    return outputs


def _finish(
    model: _Model, item: Item, source: "audio.Audio", output: Output, values: np.ndarray, flags: tp.List[str]
) -> Finished:
    """Pool, cast, check and encode one output, and make the record that will name it."""
    task = model.task
    how = task.pooling.get(output.name, "none")
    pooled = how != "none"
    if pooled:
        values = pooling.pool(values, output.axes.index("time"), how)
    dtype = task.dtype if output.dtype == "float32" else output.dtype
    values = np.asarray(values, dtype=dtype)
    store.check(output, values, pooled, "silent" not in flags)
    primary = output.name == model.extractor.outputs()[0].name
    record = Record(
        item=item.id,
        model=task.name,
        output=output.name,
        path=store.relative_path(task.name, output.name, primary, item.name, task.format),
        shape=list(values.shape),
        dtype=values.dtype.name,
        axes=[a for a in output.axes if not (pooled and a == "time")],
        frame_rate=None if pooled else output.frame_rate,
        start=None if pooled or output.frame_rate is None else output.start,
        key=key_of(task.key, output.name, source.sha256),
        sha256="",
        bytes=0,
        source=source.sha256,
        duration=source.duration,
        sample_rate=source.sample_rate,
        channels=source.channels,
        decoder=source.decoder,
        flags=sorted(flags),
        context=model.context,
    )
    return Finished(record, store.encode(values, task.format))


def _failed(item: Item, model: _Model, kind: str, message: str, source: str = "") -> Event:
    key = key_of(model.task.key, "", source or "{}:{}".format(item.size, item.mtime_ns))
    failure = Failure(item.id, model.task.name, kind, message, key)
    return Event("failed", item=item.id, model=model.task.name, failure=failure, source=_facts(item, source))


def _facts(item: Item, source: str) -> tp.Dict[str, tp.Any]:
    return {"sha256": source, "size": item.size, "mtime_ns": item.mtime_ns}


def one_line(error: BaseException) -> str:
    """Return the last words of an error on one line, with its type where the words alone say little."""
    text = " ".join(str(error).split())
    known = isinstance(error, (ValueError, RuntimeError, OSError, MemoryError)) and text
    return text if known else "{}: {}".format(type(error).__name__, text).rstrip(": ")
