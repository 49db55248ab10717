"""Fixtures of the host's tests."""

import pytest
from engine_server import engine  # noqa: F401

import orchestrator
from orchestrator.job import scan, spec
from worker import protocol, schema
from worker.work import store


@pytest.fixture(autouse=True)
def no_sizes(monkeypatch):
    """Let no plan ask a network how large its weights are; what asks is tested by its own name."""
    from orchestrator.weights import sources

    monkeypatch.setattr(sources, "sizes", lambda weights, groups: dict.fromkeys(groups, 1234))


@pytest.fixture
def write(tmp_path, record):
    """Return a writer of an output folder from (values, changes of the record)."""

    def write(*entries):
        lines = []
        for values, changes in entries:
            entry = record(shape=list(values.shape), dtype=values.dtype.name, **changes)
            path = tmp_path / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.encode(values, path.suffix[1:]))
            lines.append(protocol.canonical(schema.dump(entry)) + "\n")
        (tmp_path / "manifest.jsonl").write_text("".join(lines), "ascii")
        return orchestrator.load(tmp_path)

    return write


@pytest.fixture
def found(tmp_path):
    """Return a function that scans `tmp_path/audio`, or the file given, and returns the sources by id."""

    def scanned(name="audio", **changes):
        job = {"audio": str(tmp_path / name), "output": str(tmp_path / "out"), "models": ["prosody"], **changes}
        audio = scan.scan(spec.check(job))
        scanned.left_out = {one.reason.partition(" (")[0]: (one.count, one.examples) for one in audio.left_out}
        scanned.remarks = audio.remarks
        assert [s.id for s in audio.sources] == sorted(s.id for s in audio.sources)
        return {source.id: source for source in audio.sources}

    scanned.folder = tmp_path
    return scanned


@pytest.fixture
def touch(tmp_path):
    """Return a function that writes files of five bytes below `tmp_path/audio`."""

    def touch(*names):
        for name in names:
            path = tmp_path / "audio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345")

    return touch
