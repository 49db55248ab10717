"""Fixtures of the host's tests."""

import pytest
from engine_server import engine  # noqa: F401

import orchestrator
from worker import protocol, schema
from worker.work import store


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
