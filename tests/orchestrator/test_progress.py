"""What is shown while a run goes, on a terminal and in a pipe."""

import io
import re

import pytest

from orchestrator.running import progress
from orchestrator.running.report import Report
from worker.protocol import Event, Failure


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def report(prepare):
    return Report(prepare(models=["prosody", "crepe"]).plan)


@pytest.fixture
def clock(monkeypatch):
    """A clock of the progress alone, which stands still until it is moved."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def strftime(self, text):
            return "12:34:56"

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def begin(report, record, item="a.wav"):
    report.add("torch-cuda", Event("opened", item=item, model="prosody"))
    report.add("torch-cuda", Event("decoded", item=item, seconds=30.0))
    report.add("torch-cuda", Event("wrote", record=record(item=item, model="prosody"), seconds=1.0))


def test_the_view_suits_the_stream():
    assert isinstance(progress.choose(io.StringIO()), progress.Lines)
    assert isinstance(progress.choose(Terminal()), progress.Live)


def test_lines_carry_the_time(clock):
    stream = io.StringIO()
    with progress.Lines(stream) as lines:
        lines.say("hello")
    assert stream.getvalue() == "12:34:56 hello\n"
    assert re.match(r"\d\d:\d\d:\d\d ", progress.time.strftime("%H:%M:%S") + " ")


def test_counts_are_shown_only_every_few_seconds(clock):
    stream = io.StringIO()
    lines = progress.Lines(stream)
    for number in range(100):
        lines.stage("weights", f"{number} % of x")
        clock.now += 0.5
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == ["0", "20", "40", "60", "80"]


def test_a_stage_without_a_count_is_always_shown(clock):
    stream = io.StringIO()
    lines = progress.Lines(stream)
    for text in ("1 % of x", "unpacks packages", "2 % of x", "ready"):
        lines.stage("env", text)
    assert [line[9:] for line in stream.getvalue().splitlines()] == [
        "env: 1 % of x",
        "env: unpacks packages",
        "env: ready",
    ]


def test_updates_in_a_pipe_are_throttled_and_never_repeated(clock, report, record):
    stream = io.StringIO()
    lines = progress.Lines(stream)
    begin(report, record)
    for _ in range(200):
        lines.update(report)
        clock.now += 0.05
    assert sum("torch-cuda" in line for line in stream.getvalue().splitlines()) == 1
    begin(report, record, "b.wav")
    clock.now += 20
    lines.update(report)
    assert sum("torch-cuda" in line for line in stream.getvalue().splitlines()) == 2


def test_a_state_says_model_count_failures_speed_and_what_is_left(report, record, monkeypatch):
    begin(report, record)
    report.since["torch-cuda"] = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: 10.0)
    report.fail(Failure("b.wav", "prosody", "decode", "", ""))
    line = progress.states(report)["torch-cuda"]
    assert line.split() == ["prosody", "2/3,", "1", "failed,", "3.0x", "real", "time,", "ETA", "0:05"]


def test_an_environment_that_is_through_says_so(report, record):
    for item in ("a.wav", "b.wav", "deep/c.wav"):
        begin(report, record, item)
    assert progress.states(report)["torch-cuda"].startswith("finished")


@pytest.mark.parametrize("text", ["[/home/x] 3", "[bold]x[/nothing]", "a\nb", "caf\udce9", ""])
def test_the_live_view_takes_any_text(text, report, record, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.Live(stream) as live:
        live.say(text)
        live.stage("env", text)
        live._live.refresh()
        live.update(report)
        begin(report, record)
        live.update(report)
        live._live.refresh()
    assert text.splitlines()[0] in stream.getvalue() if text else True


def test_the_live_view_shows_every_environment(report, record, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.Live(stream) as live:
        live.stage("tf-cuda", "package 3 of 20")
        begin(report, record)
        live.update(report)
        live._live.refresh()
    shown = stream.getvalue()
    assert "package 3 of 20" in shown and "prosody" in shown and "1/3" in shown


def test_builders_may_add_their_lines_while_others_are_drawn(report):
    live = progress.Live(Terminal())
    live._draw = lambda states: [live._stages.setdefault(f"{number}", "begins") for number, _ in enumerate(states)]
    for environment in ("tf-cuda", "torch-cuda"):
        live.stage(environment, "package 3 of 20")
    live.update(report)
    assert {"0", "1"} < set(live._stages)
