"""The life of a shard: decode -> window -> batch -> extract -> stitch -> pool -> store.

Three threads overlap: one decodes ahead into a short queue, this one runs the models, one writes
behind. Each file is decoded once and fed to every model that lacks it; a file that fails is an event
and the next one goes on.
"""

import dataclasses
import logging
import os
import threading
import time
import typing as tp

import numpy as np

from worker import catalog
from worker.audio.decode import Decoded
from worker.errors import (
    AudioError,
    DeviceError,
    Interrupted,
    NoModel,
    NotFiniteError,
    OutputError,
    TooLarge,
    WeightsChanged,
)
from worker.extractor import Arrays, Extractor, Output, Windows
from worker.protocol import Channel, Event, Failure, Item, Record, Shard, Task, exit_code, key_of, one_line
from worker.work import contexts, devices, memory, pooling, store
from worker.work.decoding import Formats, decode_ahead
from worker.work.extraction import extract
from worker.work.weights import OpenWeights
from worker.work.writer import Finished, Writer

_LOG = logging.getLogger("worker")


class Roots(tp.NamedTuple):
    """Where things are inside the environment; the shard itself holds relative paths only."""

    audio: str
    output: str
    weights: str
    scratch: str


class _Model(tp.NamedTuple):
    task: Task
    extractor: Extractor
    context: str
    flags: tp.Tuple[str, ...] = ()  # of every record


def run(
    shard: Shard, roots: Roots, channel: Channel, stop: threading.Event, device: devices.Device = devices.CPU
) -> int:
    """Process every item of `shard` on `device` and return the worker's exit code."""
    work = _Work(shard, roots, channel, stop, device)
    try:
        work.load()
        work.process_all()
    except (Interrupted, NoModel, DeviceError, OSError) as error:
        if isinstance(error, DeviceError):
            channel.emit(Event("device_lost", model=error.model, message=str(error)))
        elif isinstance(error, OSError):  # of no file and no model: arrays, contexts or events cannot be written
            channel.emit(Event("output_lost", message=one_line(error)))
        return exit_code(error)
    finally:
        work.weights.close()
    channel.emit(Event("finished"), durable=True)
    return exit_code(None)


class _Work:
    """One shard under way."""

    def __init__(
        self, shard: Shard, roots: Roots, channel: Channel, stop: threading.Event, device: devices.Device
    ) -> None:
        self._device = device
        self._shard = shard
        self._roots = roots
        self._channel = channel
        self._stop = stop
        self.weights = OpenWeights()
        self._models: tp.Dict[str, _Model] = {}
        self._sizes: tp.Dict[str, int] = {}  # windows per batch, by model

    def load(self) -> None:
        """Load the models; one that cannot load is an event, and the others go on.

        Raises:
            NoModel: there is none left.
        """
        refused = 0
        for task in self._shard.tasks:
            try:
                model = self._load(task)
            except WeightsChanged as error:  # what replaced them is planned for by the next run
                for item in [item for item in self._shard.items if task.name in item.tasks]:
                    self._fail(item, [task], "changed", str(error), lasting=False)
                continue
            if model is not None:
                self._models[task.name] = model
            refused += model is None
        if refused and not self._models:
            raise NoModel

    def process_all(self) -> None:
        """Take the items as they are decoded, and run the models that each of them lacks."""
        shard, roots = self._shard, self._roots
        writer = Writer(roots.output, self._channel, "{}.{}".format(shard.id, shard.attempt))
        work = [(item, self._formats(item)) for item in shard.items if self._lacking(item)]
        ahead = decode_ahead(work, roots.audio, roots.scratch, shard.timeout, self._channel, self._stop)
        try:
            for item, source in ahead:
                if isinstance(source, AudioError):
                    tasks = [model.task for model in self._lacking(item)]
                    self._fail(item, tasks, source.kind, str(source), source.sha256, source.lasting)
                    continue
                with source:
                    self._process_item(item, source, writer)
        finally:
            writer.close()

    def _load(self, task: Task) -> tp.Optional[_Model]:
        self._channel.emit(Event("loading", model=task.name))
        began = time.monotonic()
        try:
            extractor = catalog.build(task.extractor, task.params, task.request(self._device.kind))
            # what is a user's own has an absolute path, which stays as it is
            paths = {name: os.path.join(self._roots.weights, path) for name, path in task.files.items()}
            files = self.weights.open(task.name, paths, task.checkpoint)
            device = self._device if extractor.uses_gpu() else devices.CPU
            _load_on(device, extractor, files, task.name)
            self.weights.refuse_changed(task.name)
            said = contexts.read(paths.values())
            context = contexts.context_of(self._shard, task, extractor, self._roots.output, said, device.name)
        except (OutputError, DeviceError, WeightsChanged):
            raise
        except (Exception, SystemExit) as error:
            _LOG.exception("%s cannot load", task.name)
            words = self.weights.say(one_line(error))
            self._channel.emit(Event("model_refused", model=task.name, message=words))
            return None
        self._sizes[task.name] = _batch_size(task, extractor, device)
        seconds = round(time.monotonic() - began, 3)
        _LOG.info("%s loaded in %.1f s", task.name, seconds)
        self._channel.emit(Event("loaded", model=task.name, seconds=seconds))
        flags = extractor.flags() + contexts.flags(said) + tuple(self._shard.flags if extractor.uses_gpu() else ())
        return _Model(task, extractor, context, flags)

    def _lacking(self, item: Item) -> tp.List[_Model]:
        return [self._models[name] for name in item.tasks if name in self._models]

    def _formats(self, item: Item) -> Formats:
        return sorted({(model.extractor.sample_rate, model.extractor.audio_channels) for model in self._lacking(item)})

    def _process_item(self, item: Item, source: Decoded, writer: Writer) -> None:
        facts = item.facts(source.sha256)
        self._channel.emit(Event("decoded", item=item.id, seconds=source.duration, facts=facts))
        for model in self._lacking(item):
            self._channel.emit(Event("opened", item=item.id, model=model.task.name))
            try:
                self._run_model(model, item, source, writer)
            except (Interrupted, OutputError):
                raise
            except AudioError as error:
                self._fail(item, [model.task], error.kind, str(error), source.sha256)
            except WeightsChanged as error:
                self._fail(item, [model.task], "changed", str(error), source.sha256, lasting=False)
            except NotFiniteError as error:
                self._fail(item, [model.task], "nonfinite", str(error), source.sha256)
            except (MemoryError, TooLarge) as error:
                words = one_line(error) if str(error) else "not enough memory"
                self._fail(item, [model.task], "memory", words, source.sha256)
            except (Exception, SystemExit) as error:
                self._refuse_broken(error)
                _LOG.exception("%s: %s failed", item.id, model.task.name)
                self._fail(item, [model.task], "model", one_line(error), source.sha256)

    def _run_model(self, model: _Model, item: Item, source: Decoded, writer: Writer) -> None:
        began = time.monotonic()
        extractor = model.extractor
        memory.refuse_what_cannot_fit(extractor, source.duration, self._shard.memory)
        wave = source.wave(extractor.sample_rate, extractor.audio_channels)
        frames, padded = self._extract(model, wave)
        self.weights.refuse_changed(model.task.name)  # mapped files are read while the model runs
        flags = [*source.flags, *model.flags, *(["padded"] if padded else [])]
        finished = [
            one
            for output in catalog.wanted(extractor)
            for one in _finish(model, item, source, output, frames[output.name], flags)
        ]
        writer.put(finished, time.monotonic() - began)
        _LOG.info("%s: %s took %.2f s", item.id, model.task.name, time.monotonic() - began)

    def _extract(self, model: _Model, wave: np.ndarray) -> tp.Tuple[Arrays, bool]:
        """Run a model; where its device has not the memory for a batch, with a smaller one from then on."""
        while True:
            size = self._sizes[model.task.name]
            try:
                return extract(model.extractor, wave, size, self._roots.scratch, self._stop)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                said = one_line(error)
            devices.empty_cache(self._shard.gpu_module)  # only now: the error has held what its frames had allocated
            if size == 1:
                raise TooLarge(said)
            words = "{} -> {}: {}".format(size, size // 2, said)
            _LOG.warning("%s: batch %s", model.task.name, words)
            self._channel.emit(Event("batch_reduced", model=model.task.name, message=words))
            self._sizes[model.task.name] = size // 2

    def _refuse_broken(self, error: BaseException) -> None:
        """Raise when it is the GPU that failed: another process, or another GPU, may do what this one cannot."""
        if self._device.kind == "cuda" and devices.is_broken(error):
            raise DeviceError(one_line(error)) from error

    def _fail(
        self, item: Item, tasks: tp.Sequence[Task], kind: str, message: str, source: str = "", lasting: bool = True
    ) -> None:
        """Report that the models of `tasks` cannot have `item`; `source` is its hash, empty if it was not read."""
        _LOG.warning("%s: %s: %s", item.id, kind, message)
        known = source or item.unread
        facts = item.facts(source)
        events = []
        for task in tasks:
            key = key_of(task.key, "", known, item.segment) if lasting else ""
            failure = Failure(item.id, task.name, kind, message, key)
            events.append(Event("failed", item=item.id, model=task.name, failure=failure, facts=facts))
        self._channel.emit(*events, durable=True)


def _load_on(device: devices.Device, extractor: Extractor, files: tp.Mapping[str, str], name: str) -> None:
    """Load a model.

    Raises:
        DeviceError: on a GPU, whatever went wrong: frameworks have no end of words for a GPU that they cannot use.
            Only a file that cannot be read is no matter of the device; of all else the CPU will tell.
    """
    try:
        extractor.load(device.kind, files)
    except (Exception, SystemExit) as error:
        unread = isinstance(error, OSError) and error.filename in files.values()
        if device.kind == "cpu" or unread:
            raise
        _LOG.exception("%s cannot load on %s", name, device.name)
        raise DeviceError(one_line(error), name) from error


def _batch_size(task: Task, extractor: Extractor, device: devices.Device) -> int:
    if not isinstance(extractor.framing(), Windows):
        return 1
    return task.batch_size or (extractor.batch_size if device.kind == "cpu" else extractor.gpu_batch_size)


def _finish(
    model: _Model, item: Item, source: Decoded, output: Output, values: np.ndarray, flags: tp.List[str]
) -> tp.Iterator[Finished]:
    """Yield the array of one output, or those of its windows, each with its record."""
    if model.task.layout != "per-window" or output.axes[0] != "window":
        yield _finish_array(model, item, source, output, values, flags)
        return
    single = output._replace(axes=output.axes[1:], shape=output.shape[1:])
    for number, part in reversed(list(enumerate(values))):  # the first one last: where it is, all others are
        named = dataclasses.replace(item, name=store.name_window(item.name, number))
        finished = _finish_array(model, named, source, single, part, flags)
        yield finished._replace(record=dataclasses.replace(finished.record, window=number, windows=len(values)))


def _finish_array(
    model: _Model, item: Item, source: Decoded, output: Output, values: np.ndarray, flags: tp.List[str]
) -> Finished:
    """Pool, cast, check and encode one array, and make the record that will name it."""
    task = model.task
    how = task.pooling.get(output.name, "none")
    pooled = how != "none"
    if pooled:
        values = pooling.pool(values, output.axes.index("time"), how)
    dtype = task.dtype if output.dtype == "float32" and not output.events else output.dtype
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
        key=key_of(task.key, output.name, source.sha256, item.segment),
        sha256="",
        bytes=0,
        source=source.sha256,
        duration=source.duration,
        sample_rate=source.sample_rate,
        channels=source.channels,
        decoder=source.decoder,
        flags=sorted(flags),
        context=model.context,
        declared=source.declared,
        peak=source.peak,
        samples=source.samples,
        segment=item.segment,
    )
    return Finished(record, store.encode(values, task.format))
