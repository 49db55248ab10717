import fcntl
import hashlib
import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import errors, protocol
from worker.protocol import Channel, Event, Failure


def read(path):
    with open(str(path), encoding="ascii", newline="") as f:
        return f.read()


@pytest.fixture
def impatient(monkeypatch):
    """A refused writer tries for a second; these tests know that it will be in vain."""
    monkeypatch.setattr(protocol.time, "sleep", lambda seconds: None)


@pytest.fixture
def channel(tmp_path):
    channel = Channel(str(tmp_path / "events.jsonl"))
    yield channel
    channel.close()


def test_key_depends_on_every_argument():
    whole = protocol.key_of("task", "pitch", "source")
    others = [
        protocol.key_of("other", "pitch", "source"),
        protocol.key_of("task", "other", "source"),
        protocol.key_of("task", "pitch", "other"),
        protocol.key_of("taskpitch", "", "source"),
        protocol.key_of("pitch", "task", "source"),
        protocol.key_of("task", "", "pitch\nsource"),
    ]
    assert len({whole, *others}) == 7
    assert len(whole) == 64
    assert whole == protocol.key_of("task", "pitch", "source")


def test_key_is_the_same_for_ever():
    # the keys of finished work: another value here means that every user computes everything again
    assert protocol.key_of("t", "o", "s") == hashlib.sha256(b"consort\nt\no\ns").hexdigest()


def test_digest_ignores_the_order_of_keys_only():
    assert protocol.digest({"a": 1, "b": [1, 2]}) == protocol.digest({"b": [1, 2], "a": 1})
    assert protocol.digest({"a": [2, 1]}) != protocol.digest({"a": [1, 2]})
    assert protocol.digest({"a": 1}) != protocol.digest({"a": 1.5})
    assert protocol.digest({"a": None}) != protocol.digest({})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_canonical_json_is_ascii_and_read_back(value):
    text = protocol.canonical(value)
    text.encode("ascii")
    assert "\n" not in text
    assert json.loads(text) == value
    assert protocol.canonical(json.loads(text)) == text


def test_names_that_are_no_utf8_survive(channel, tmp_path):
    name = os.fsdecode(b"caf\xe9/\xff\n.wav")
    channel.emit(Event("opened", item=name))
    (line,) = read(tmp_path / "events.jsonl").splitlines()
    assert protocol.decode(line).item == name
    protocol.digest({"item": name})


def test_fields_that_are_not_set_are_left_out():
    assert json.loads(protocol.encode(Event("opened", 1.5, item="a"))) == {"kind": "opened", "time": 1.5, "item": "a"}


def test_events_are_appended_as_whole_lines_with_their_time(channel, tmp_path):
    channel.emit(Event("hello"), Event("loading", model="m"))
    before = read(tmp_path / "events.jsonl")
    channel.emit(Event("failed", failure=Failure("i", "m", "model", "line\nbreak", "k")), durable=True)
    after = read(tmp_path / "events.jsonl")
    assert after.startswith(before)
    assert after.endswith("\n")
    events = [protocol.decode(line) for line in after.splitlines()]
    assert [event.kind for event in events] == ["hello", "loading", "failed"]
    assert events[2].failure.message == "line\nbreak"
    assert all(event.time > 1.6e9 for event in events)


def test_a_later_writer_appends(tmp_path):
    for kind in ("hello", "finished"):
        channel = Channel(str(tmp_path / "events.jsonl"))
        channel.emit(Event(kind))
        channel.close()
    assert len(read(tmp_path / "events.jsonl").splitlines()) == 2


def test_second_writer_is_refused_until_the_first_is_gone(channel, impatient, tmp_path):
    path = str(tmp_path / "events.jsonl")
    with pytest.raises(BlockingIOError):
        Channel(path)
    with open(path) as f, pytest.raises(BlockingIOError):
        fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    channel.close()
    Channel(path).close()


def test_refused_writer_leaves_no_open_file(channel, impatient, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(BlockingIOError) as caught:
            Channel(str(tmp_path / "events.jsonl"))
        assert len(os.listdir("/proc/self/fd")) == before, caught  # which keeps the frame and all in it alive


def test_only_durable_events_are_synced(channel, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    channel.emit(Event("heartbeat"))
    assert synced == []
    channel.emit(Event("finished"), durable=True)
    assert len(synced) == 1
    assert synced[0] > 70  # both lines were written by then


def test_threads_do_not_mix_their_lines(channel, tmp_path):
    long = "x" * 20000  # more than any buffer in between
    threads = [
        threading.Thread(target=lambda n=n: [channel.emit(*[Event("opened", item=long + n)] * 2) for _ in range(10)])
        for n in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = [protocol.decode(line) for line in read(tmp_path / "events.jsonl").splitlines()]
    told = [event.item[-1] for event in events]
    assert sorted(told) == sorted("abcd" * 20)
    assert told[::2] == told[1::2]  # what is told at once stays together


def test_full_disk_is_an_error_of_the_writer(full_disk):
    full_disk()
    channel = Channel("events.jsonl")
    for act in (lambda: channel.emit(Event("hello")), channel.close):
        with pytest.raises(OSError, match="No space"):
            act()


@pytest.mark.parametrize("line", ["", "null", "[]", '"finished"', "{}", '{"kind":1}', '{"kind":"opened","x":1}'])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError):
        protocol.decode(line)


def test_every_half_line_is_refused():
    line = protocol.encode(Event("failed", 1.0, "a.wav", "m", failure=Failure("a.wav", "m", "model", "{}", "k")))
    assert protocol.decode(line).failure.item == "a.wav"
    for end in range(len(line) - 1):
        with pytest.raises(ValueError):
            protocol.decode(line[:end])


def test_every_class_of_failure_is_handled_or_tried_again():
    assert len(set(protocol.HANDLED + protocol.TRANSIENT)) == len(protocol.HANDLED) + len(protocol.TRANSIENT) == 11


def test_an_event_says_what_its_kind_can_say_and_nothing_else():
    with pytest.raises(ValueError, match="kind: unknown kind; did you mean loaded"):
        Event("loadd")
    with pytest.raises(ValueError, match="an event of kind loaded has no item, message"):
        Event("loaded", model="m", item="a.wav", message="x")
    with pytest.raises(ValueError, match="unknown kind"):
        protocol.decode('{"kind":"news"}')


@pytest.mark.parametrize(
    "error,code",
    [
        (None, 0),
        (errors.CannotStart("x"), 65),
        (errors.NoModel(), 69),
        (errors.DeviceMissing("x"), 69),
        (errors.DeviceError("x", "m"), 71),
        (errors.OutputError(28, "x"), 74),
        (OSError(28, "x"), 74),
        (errors.Interrupted(), 75),
    ],
)
def test_exit_codes(error, code):
    assert protocol.exit_code(error) == code


def test_no_error_is_a_memory_error():
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(kinds) > 10 and not [kind for kind in kinds if issubclass(kind, MemoryError)]
