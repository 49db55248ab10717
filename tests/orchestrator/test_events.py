"""Every kind of event, read by everything on the host that reads events; the engine's clock has its own test."""

import types

import pytest

from orchestrator.fitting import work
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import OutputDir
from orchestrator.output.ledger import Ledger
from orchestrator.running import compose
from orchestrator.running.attempts import Attempt
from orchestrator.running.report import Report
from worker import protocol
from worker.protocol import Event, Facts, Failure, Shard

SHA = "1" * 64
LEFT_BY_0_4 = [
    '{"kind":"hello","source":{"protocol":1,"python":"3.11.9","torch":"2.13.0"},"time":1.0}',
    '{"item":"a.wav","kind":"decoded","seconds":0.5,"source":{"mtime_ns":7,"sha256":"%s","size":5},"time":1.0}' % SHA,
    '{"failure":{"item":"b.wav","key":"k","kind":"decode","message":"no sound","model":"m"},"item":"b.wav",'
    '"kind":"failed","model":"m","source":{"mtime_ns":9,"sha256":"%s","size":6},"time":1.0}' % SHA,
    '{"kind":"failed","message":"no such checkpoint","model":"m","time":1.0}',
    '{"kind":"failed","message":"disk full","time":1.0}',
    '{"kind":"hello","message":"the driver shows none","source":{"protocol":1},"time":1.0}',
]


@pytest.fixture
def say(record):
    """Return an event of a kind with all that it can say."""
    fields = {
        "item": "a.wav",
        "model": "prosody",
        "message": "words",
        "seconds": 1.0,
        "record": record(item="a.wav", model="prosody"),
        "failure": Failure("a.wav", "prosody", "decode", "no sound", "k"),
        "facts": Facts(SHA, 5, 7),
        "packages": {"numpy": "2.0"},
        "device": "cpu",
        "protocol": protocol.VERSION,
        "share": 0.5,
        "outcome": {"loss": 1.0},
    }
    return lambda kind: Event(kind, **{name: fields[name] for name in protocol.KINDS[kind]})


def new_kind(kind):
    """Return an event of a kind that has been added to the protocol and to none of its readers."""
    event = Event("heartbeat")
    object.__setattr__(event, "kind", kind)
    return event


@pytest.fixture
def readers(prepare, tmp_path, monkeypatch):
    """Return everything that takes an event in."""
    output = OutputDir(tmp_path / "other")
    output.create()
    (output.records / "compose-env.1.jsonl").write_text("")

    def reasons(event):
        monkeypatch.setattr(ledgers, "events", lambda path: [event])
        compose._reasons(output)

    shown = types.SimpleNamespace(say=lambda text: None, stage=lambda name, text: None)
    return {
        "fit": lambda event: work.tell(event, Attempt(Shard("s", 1, "env", [], [])), shown),
        "attempt": Attempt(Shard("s", 1, "env", [], [])).note,
        "report": lambda event: Report(prepare().plan).add("env", event),
        "ledger": Ledger().add,
        "compose": reasons,
    }


@pytest.mark.parametrize("reader", ["fit", "attempt", "report", "ledger", "compose"])
def test_every_reader_knows_every_kind_and_refuses_a_new_one(readers, reader, say):
    for kind in protocol.KINDS:
        readers[reader](say(kind))
    with pytest.raises(AssertionError, match="nothing is known of events of kind 'news'"):
        readers[reader](new_kind("news"))


def test_what_version_0_4_left_is_folded(tmp_path):
    output = OutputDir(tmp_path / "out")
    output.create()
    (output.records / "run-env-0.1.jsonl").write_text("\n".join(LEFT_BY_0_4) + "\n")
    kinds = [event.kind for path in ledgers.attempts(output) for event in ledgers.events(path)]
    assert kinds == ["hello", "decoded", "failed", "model_refused", "output_lost", "device_missing"]
    ledger = ledgers.fold(output)
    assert ledger.sources == {"a.wav": Facts(SHA, 5, 7), "b.wav": Facts(SHA, 6, 9)}
    assert [(f.item, f.kind, f.key) for f in ledger.failures.values()] == [("b.wav", "decode", "k")]


def test_a_gpu_that_breaks_while_loading_is_missing_and_later_it_is_lost():
    attempt = Attempt(Shard("s", 1, "env", [], []))
    attempt.note(Event("loading", model="m"))
    attempt.note(Event("device_lost", model="m", message="out of memory"))
    assert (attempt.device, attempt.broken, attempt.loading) == ("out of memory", None, None)
    attempt.note(Event("device_lost", message="CUDA error"))
    assert (attempt.device, attempt.broken) == ("out of memory", "CUDA error")
