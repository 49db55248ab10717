"""How a shard ends before its time: stopped, or with an output folder that cannot be written."""

import errno
import threading

import pytest

from worker import catalog, protocol
from worker.errors import OutputError
from worker.protocol import Channel
from worker.work import decoding, devices, store


def stop_at(stop, count):
    calls = []

    def act(extractor, batch):
        calls.append(1)
        if len(calls) == count:
            stop.set()

    return act


@pytest.mark.parametrize("call,finished", [(1, 0), (2, 1), (5, 2), (7, 3)])  # two calls for each item
def test_stop_commits_what_is_finished(job, hook, call, finished):
    job.add_three()
    job.add("d.wav")
    stop = threading.Event()
    hook(stop_at(stop, call))
    assert job.run(stop) == protocol.EXIT_AGAIN
    assert [w[0] for w in job.wrote()] == ["a.wav", "sub/b.wav", "c.wav"][:finished]
    assert job.files() == sorted(event["record"]["path"] for event in job.events("wrote"))
    assert job.events("finished") == []


def test_stop_before_the_start_opens_nothing(job):
    job.add_three()
    stop = threading.Event()
    stop.set()
    assert job.run(stop) == protocol.EXIT_AGAIN
    assert job.events("opened", "wrote", "finished") == []


def test_stop_does_not_wait_for_a_file_that_hangs(job, monkeypatch):
    job.add_three()
    stop, go, ended = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(decoding, "decode", lambda *a, **k: [go.wait(20), ended.set()])
    threading.Timer(0.1, stop.set).start()
    assert job.run(stop) == protocol.EXIT_AGAIN
    assert not ended.is_set()
    go.set()


def test_stop_seen_by_the_decoding_thread_first_is_no_regular_end(job):
    class Late(threading.Event):
        """Set from the start for the thread that decodes, and for this one after its first look."""

        looks = 0

        def is_set(self):
            self.looks += threading.current_thread() is threading.main_thread()
            return threading.current_thread() is not threading.main_thread() or self.looks > 1

    job.add_three()
    assert job.run(Late()) == protocol.EXIT_AGAIN
    assert job.events("finished") == []


class Full:
    """A disk that is full after some files."""

    def __init__(self, monkeypatch, count):
        self.left = count
        self.write = store.write
        monkeypatch.setattr(store, "write", self)

    def __call__(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise OutputError(errno.ENOSPC, "cannot write x: No space left on device")
        return self.write(*arguments)


@pytest.mark.parametrize("stopped", [False, True])
def test_full_disk_ends_the_shard_and_keeps_what_was_finished(job, hook, monkeypatch, stopped):
    job.add_three()
    Full(monkeypatch, 2)  # the context, and an array
    stop = threading.Event()
    hook(stop_at(stop, 5 if stopped else 0))
    assert job.run(stop) == protocol.EXIT_OUTPUT
    assert [w[0] for w in job.wrote()] == ["a.wav"]
    assert job.files() == ["tone/a.npy"]
    (lost,) = job.events("output_lost")
    assert (lost.get("model"), lost.get("item")) == (None, None)
    assert "No space left on device" in lost["message"]
    assert job.events("finished") == []


def test_output_folder_that_is_none_ends_the_shard(job, tmp_path):
    job.add_three()
    (tmp_path / "file").write_text("")
    assert job.run(output=str(tmp_path / "file")) == protocol.EXIT_OUTPUT
    assert "Not a directory" in job.events("output_lost")[0]["message"]


@pytest.mark.parametrize("kind", ["opened", "decoded", "wrote"])
def test_events_that_cannot_be_written_end_the_shard_in_whatever_thread(job, kind):
    class Broken(Channel):
        def emit(self, *events, durable=False):
            if events[0].kind == kind:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().emit(*events, durable=durable)

    job.add_three()
    assert job.run(channel=Broken(str(job.folder / "events.jsonl"))) == protocol.EXIT_OUTPUT
    assert job.events("output_lost")[0]["message"].endswith("No space left on device")


@pytest.mark.parametrize(
    "error,words",
    [
        (ValueError("a\n  b"), "a b"),
        (RuntimeError(), "RuntimeError"),
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError("no"), "AssertionError: no"),
        (MemoryError("1 GB"), "1 GB"),
        (FileNotFoundError(2, "No such file", "/x"), "[Errno 2] No such file: '/x'"),
        (ValueError("a" * 900 + "b" * 900), "a" * 250 + " ... " + "b" * 250),
    ],
)
def test_errors_are_told_on_one_line(error, words):
    assert protocol.one_line(error) == words


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def test_a_batch_too_large_for_its_device_is_halved_from_then_on(job, hook, monkeypatch):
    seen = []

    def act(extractor, batch):
        seen.append(len(batch.lengths))
        if len(batch.lengths) > 3:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    emptied = []
    monkeypatch.setattr(devices, "empty_cache", lambda module: emptied.append(len(seen)))
    hook(act)
    job.add_three(batch_size=12)
    assert job.run() == 0
    assert emptied == [1, 2], "before the smaller one is tried"
    assert seen[:3] == [12, 6, 3]
    assert set(seen[3:]) == {3}
    said = [event["message"] for event in job.events("batch_reduced")]
    assert [text.partition(":")[0] for text in said] == ["12 -> 6", "6 -> 3"]
    assert len(job.wrote()) == 3


@pytest.fixture
def gpu(monkeypatch):
    """Let every model compute on a GPU, as far as the pipeline knows."""
    from worker.extractor import Extractor
    from worker.work import devices, pipeline

    monkeypatch.setattr(Extractor, "uses_gpu", lambda self: True)
    run = pipeline.run
    device = devices.Device("cuda", "cuda NVIDIA H200")
    monkeypatch.setattr(pipeline, "run", lambda *arguments: run(*arguments, device))


def test_a_gpu_that_breaks_ends_the_worker_and_blames_no_item(job, hook, gpu):
    calls = []

    def act(extractor, batch):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    hook(act)
    job.add_three()
    assert job.run() == protocol.EXIT_DEVICE
    assert len(job.wrote()) == 1 and job.failures() == {}
    (lost,) = job.events("device_lost")
    assert lost["message"].startswith("CUDA error: an illegal memory access") and "model" not in lost


def fail_loading(monkeypatch, error):
    def load(self, device, files):
        raise error

    monkeypatch.setattr(catalog.find("consort_test_models:Tone"), "load", load)


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("CUDA out of memory"), RuntimeError("no"), SystemExit(3), OSError("h5")]
)
def test_whatever_fails_a_model_that_loads_on_a_gpu_is_first_the_gpus(job, gpu, monkeypatch, error):
    fail_loading(monkeypatch, error)
    job.add_three()
    assert job.run() == protocol.EXIT_DEVICE
    assert [event["kind"] for event in job.events()] == ["loading", "device_lost"]
    (lost,) = job.events("device_lost")
    assert lost["model"] == "tone" and str(error) in lost["message"]


def test_a_model_whose_file_is_missing_is_refused_on_a_gpu_too(job, gpu, monkeypatch):
    job.add_three(files={"weights": "/nowhere/weights"})
    fail_loading(monkeypatch, FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/weights"))
    assert job.run() == protocol.EXIT_NO_MODEL
    assert [event["kind"] for event in job.events()] == ["loading", "model_refused"]


def test_what_does_not_fit_alone_is_a_failure_for_want_of_memory(job, hook):
    def act(extractor, batch):
        raise OutOfMemoryError("CUDA out of memory")

    hook(act)
    job.add_three(batch_size=2)
    assert job.run() == 0
    assert set(job.failures().values()) == {"memory"}
    assert len(job.events("batch_reduced")) == 1
