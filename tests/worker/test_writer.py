import contextlib
import errno
import hashlib
import json
import os
import threading
import time

import pytest

from worker.errors import OutputError
from worker.protocol import Channel, Event, Record
from worker.work import store, writer
from worker.work.writer import Finished, Writer


def finished(path, data=b"data", item="a.wav", output="pitch"):
    record = Record(
        item, "m", output, path, [1], "float32", ["time"], 100.0, 0.0, "k", "", 0, "s", 1.0, 8000, 1, "d", [], "c"
    )
    return Finished(record, data)


class Place:
    """An output folder with its channel; the events are read back from the file."""

    def __init__(self, folder):
        self.folder = folder
        self.channel = Watching(str(folder / "events.jsonl"))
        self.channel.folder = folder
        self.writer = Writer(str(folder), self.channel, "s.1")

    def events(self):
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def wrote(self):
        return [event["record"]["path"] for event in self.events() if event["kind"] == "wrote"]

    def wait_for(self, count):
        began = time.monotonic()
        while len(self.events()) < count:
            assert time.monotonic() - began < 10
            time.sleep(0.01)
        return time.monotonic() - began

    def parts(self):
        return [name for _, _, names in os.walk(str(self.folder)) for name in names if name.endswith(".part")]


class Watching(Channel):
    """A channel that looks, before a line is written, whether what it says is true."""

    def emit(self, *events, durable=False):
        for event in events:
            if event.kind == "wrote":
                data = (self.folder / event.record.path).read_bytes()
                assert hashlib.sha256(data).hexdigest() == event.record.sha256
                assert durable
        super().emit(*events, durable=durable)


@pytest.fixture
def place(tmp_path):
    before = threading.active_count()
    place = Place(tmp_path)
    yield place
    try:
        place.writer.close()
    except OutputError:
        pass
    place.channel.close()
    assert threading.active_count() == before
    assert place.parts() == []


def test_record_follows_its_array_with_hash_and_size(place):
    place.writer.put([finished("m/a.npy", b"one"), finished("m.x/a.npy", b"three", output="x")], 0.12345)
    place.writer.close()
    assert [place.folder.joinpath(path).read_bytes() for path in place.wrote()] == [b"one", b"three"]
    first, second = place.events()
    assert (first["item"], first["model"], first["seconds"], second["seconds"]) == ("a.wav", "m", 0.123, 0.123)
    assert (first["record"]["bytes"], second["record"]["bytes"]) == (3, 5)
    assert first["record"]["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_finished_array_waits_about_a_second_for_company(place):
    place.writer.put([finished("m/a.npy")], 0.0)
    time.sleep(0.3)
    assert place.events() == []
    (part,) = place.parts()
    assert part.startswith(".s.1-1.")
    assert place.wait_for(1) > 0.4
    assert os.listdir(str(place.folder / "m")) == ["a.npy"]


def test_trickle_does_not_put_off_the_commit(place, monkeypatch):
    monkeypatch.setattr(writer, "_SECONDS", 0.2)
    began = time.monotonic()
    while not place.events():
        place.writer.put([finished("m/{}.npy".format(time.monotonic()))], 0.0)
        time.sleep(0.05)
        assert time.monotonic() - began < 10
    assert len(place.events()) < 60


def test_group_is_committed_when_it_is_full(place, monkeypatch):
    monkeypatch.setattr(writer, "_SECONDS", 60)
    for n in range(64):
        assert place.events() == []
        place.writer.put([finished("m/{}.npy".format(n))], 0.0)
    place.wait_for(64)
    place.writer.put([finished("m/64.npy")], 0.0)
    place.writer.close()
    assert place.wrote() == ["m/{}.npy".format(n) for n in range(65)]


def test_one_sync_of_the_events_serves_a_group(place, monkeypatch):
    synced = []
    emit = place.channel.emit
    monkeypatch.setattr(
        place.channel, "emit", lambda *events, **how: [synced.append(len(events)), emit(*events, **how)]
    )
    for n in range(30):
        place.writer.put([finished("m/{}.npy".format(n))], 0.0)
    place.writer.close()
    assert sum(synced) == 30
    assert len(synced) < 5


def test_closing_an_idle_writer_twice_is_harmless(place):
    place.writer.close()
    place.writer.close()
    assert place.events() == []


def test_full_disk_keeps_what_was_finished_and_refuses_the_rest(place, full_disk):
    place.writer.put([finished("m/a.npy")], 0.0)
    place.wait_for(1)
    full_disk()
    place.writer.put([finished("n/b.npy")], 0.0)
    with pytest.raises(OutputError) as caught:
        for _ in range(100):  # far more than the queue holds: nobody may wait for ever
            place.writer.put([finished("m/c.npy")], 0.0)
            time.sleep(0.01)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OutputError, match=r"cannot write n/b\.npy: No space left on device"):
        place.writer.close()
    assert place.wrote() == ["m/a.npy"]
    assert os.listdir(str(place.folder / "n")) == []


@pytest.mark.parametrize("position", [0, 1])
def test_name_that_is_too_long_fails_its_item_alone(place, position):
    outputs = [finished("m.x/ok.npy", item="long.wav", output="x")] * 2
    outputs[position] = finished("m/{}.npy".format("n" * 252), item="long.wav")
    place.writer.put([finished("m/a.npy")], 0.0)
    place.writer.put(outputs, 0.0)
    place.writer.put([finished("m/c.npy", item="c.wav")], 0.0)
    place.writer.close()
    assert place.wrote() == ["m/a.npy", "m/c.npy"]
    (failed,) = [event for event in place.events() if event["kind"] == "failed"]
    assert (failed["item"], failed["model"], failed["failure"]["kind"]) == ("long.wav", "m", "write")
    assert failed["failure"]["message"].endswith("File name too long")
    assert not (place.folder / "m.x/ok.npy").exists()


def test_link_out_of_the_folder_fails_its_item_alone(place):
    (place.folder / "out").symlink_to("/")
    place.writer.put([finished("out/a.npy")], 0.0)
    place.writer.put([finished("m/b.npy")], 0.0)
    place.writer.close()
    assert place.wrote() == ["m/b.npy"]
    assert [event["kind"] for event in place.events()] == ["failed", "wrote"]


@pytest.mark.parametrize("path", ["m/a.npy", "m/{}.npy".format("n" * 300)])
def test_events_that_cannot_be_written_end_it_and_nobody_waits(tmp_path, path, full_disk):
    with full_disk():
        channel = Channel("events.jsonl")
    broken = Writer(str(tmp_path), channel, "s.1")
    with pytest.raises(OutputError, match="No space left"):
        for _ in range(300):
            broken.put([finished(path)], 0.0)
            time.sleep(0.01)
    with pytest.raises(OutputError, match="No space left"):
        broken.close()
    with contextlib.suppress(OSError):  # what could not be written is tried once more
        channel.close()


def test_unexpected_error_is_told_and_nobody_waits(place, monkeypatch):
    def fail(*arguments):
        time.sleep(0.2)  # while the queue fills up
        raise ValueError("surprise")

    def put():
        with pytest.raises(OutputError, match="cannot go on writing: surprise"):
            for _ in range(100):
                place.writer.put([finished("m/c.npy")], 0.0)
        told.append(1)

    told = []
    monkeypatch.setattr(store, "write", fail)
    putting = threading.Thread(target=put, daemon=True)
    putting.start()
    putting.join(5)
    assert told


def test_record_is_never_made_before_the_commit(place, monkeypatch):
    def refuse(stored):
        store.discard(stored)
        raise OutputError(errno.EIO, "cannot finish an array: Input/output error")

    monkeypatch.setattr(store, "commit", refuse)
    place.writer.put([finished("m/a.npy")], 0.0)
    with pytest.raises(OutputError, match="cannot finish"):
        place.writer.close()
    place.channel.emit(Event("heartbeat"))
    assert place.wrote() == []
