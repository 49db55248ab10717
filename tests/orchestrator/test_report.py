"""Counts, the final table and the exit code of a run."""

import itertools
import json

import pytest

from orchestrator.running.report import Report
from orchestrator.text import duration, table
from worker.protocol import Event, Failure


@pytest.fixture
def report(prepare):
    return Report(prepare(models=["prosody", "crepe"]).plan)


def finish(report, record, but=()):
    for name, model in itertools.product(("a.wav", "b.wav", "deep/c.wav"), ("prosody", "crepe")):
        if (name, model) not in but:
            report.add("env", Event("wrote", record=record(item=name, model=model), seconds=0.5))


def failure(item="a.wav", model="crepe", kind="decode"):
    return Failure(item, model, kind, "no sound", "k")


def test_everything_written_is_0(report, record):
    finish(report, record)
    assert report.exit_code == 0
    assert [(c.total, c.done, c.left) for c in report.models.values()] == [(3, 3, 0), (3, 3, 0)]


def test_something_left_without_a_reason_is_never_0(report, record):
    finish(report, record, but={("a.wav", "crepe")})
    assert report.exit_code == 4


def test_the_first_exit_code_that_applies_is_given(report, record):
    finish(report, record, but={("a.wav", "crepe")})
    report.add("env", Event("failed", failure=failure()))
    assert report.exit_code == 1
    report.lost.append("shard")
    assert report.exit_code == 4
    assert report.unavailable("crepe", "no weights")
    assert report.exit_code == 3
    report.interrupted = True
    assert report.exit_code == 130


def test_what_failed_earlier_still_counts(prepare, work):
    work(prepare(), failing={("b.wav", "prosody"): "decode"})
    report = Report(prepare().plan)
    assert (report.exit_code, report.models["prosody"].known, report.models["prosody"].skipped) == (1, 1, 2)


def test_nothing_to_do_is_0(prepare, work):
    work(prepare())
    assert Report(prepare().plan).exit_code == 0


def test_items_are_counted_once_whatever_their_outputs(report, record):
    for output in ("pitch", "activation", "pitch"):
        report.add("env", Event("wrote", record=record(output=output), seconds=1.0))
    report.fail(failure())
    report.fail(failure("b.wav"))
    report.fail(failure("b.wav"))
    count = report.models["crepe"]
    assert (count.done, dict(count.failed), count.left, len(report.failures)) == (1, {"decode": 1}, 1, 1)


def test_speed_is_audio_over_the_workers_time(report, record):
    report.add("env", Event("decoded", item="a.wav", seconds=30.0))
    report.add("env", Event("wrote", record=record(), seconds=2.0))
    assert report.models["crepe"].speed == 15
    assert report.models["prosody"].speed is None


def test_the_first_reason_why_a_model_cannot_run_is_kept(report):
    assert report.unavailable("crepe", "first")
    assert not report.unavailable("crepe", "second")
    assert report.models["crepe"].unavailable == "first"


def test_the_final_table(report, record):
    finish(report, record, but={("a.wav", "crepe"), ("b.wav", "crepe"), ("a.wav", "prosody")})
    report.fail(failure())
    report.fail(failure("b.wav", kind="model"))
    report.unavailable("prosody", "gone")
    rows = report.rows()
    assert rows[0] == ("model", "environment", "done", "skipped", "failed", "left", "x real time")
    assert rows[1][:6] == ("prosody", "torch-cuda", "2", "0", "0", "1 unavailable")
    assert rows[2][:6] == ("crepe", "tf-cuda", "1", "0", "1 decode, 1 model", "0")


def test_the_report_is_kept_as_json(report, record):
    finish(report, record, but={("a.wav", "crepe")})
    report.fail(failure())
    kept = json.loads(report.json())
    assert kept["exit_code"] == 1
    assert kept["models"]["crepe"]["failed"] == {"decode": 1} and kept["models"]["crepe"]["left"] == 0
    assert kept["failures"][0]["message"] == "no sound"


def test_a_table_aligns_text_left_and_numbers_right():
    rows = [("name", "count", "rest"), ("a", "3", "x"), ("longer", "1234567", ""), ("b", "~1.5", "y")]
    assert table(rows).splitlines() == [
        "name    count    rest",
        "a             3  x",
        "longer  1234567",
        "b          ~1.5  y",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (4.4, "0:04"), (59.7, "1:00"), (751, "12:31"), (11100, "3:05:00"), (1e6, "277:46:40")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
