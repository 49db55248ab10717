"""How a run is shown while it goes: one live line per environment, or dated lines in a pipe."""

import collections
import sys
import time
import typing as tp

from orchestrator.running.report import ModelCount, Report
from orchestrator.text import duration

_EVERY = 10.0  # seconds between two lines of the same environment in a pipe


class Lines:
    """Plain lines with the time, for logs and pipes."""

    def __init__(self, stream: tp.TextIO) -> None:
        self._stream = stream
        self._last: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.flush()

    def say(self, text: str) -> None:
        """Print one line now."""
        print(time.strftime("%H:%M:%S"), text, file=self._stream, flush=True)

    def stage(self, environment: str, text: str) -> None:
        """Show what is being made ready; of counts and shares only one every few seconds."""
        last, _ = self._last.get(environment, (0.0, ""))
        if time.monotonic() - last >= _EVERY or not any(digit in text for digit in "0123456789"):
            self._last[environment] = (time.monotonic(), text)
            self.say(f"{environment}: {text}")

    def update(self, report: Report) -> None:
        """Show where the run stands, at most every few seconds for each environment."""
        for environment, text in states(report).items():
            last, shown = self._last.get(environment, (0.0, ""))
            ended = text.startswith("finished") and not shown.startswith("finished")
            if ended or (text != shown and not text.startswith("waiting") and time.monotonic() - last >= _EVERY):
                self._last[environment] = (time.monotonic(), text)
                self.say(f"{environment}: {text}")


class Live:
    """One line per environment at the foot of a terminal; everything said scrolls above it."""

    def __init__(self, stream: tp.TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(file=stream, highlight=False)
        self._live = RichLive(console=self._console, refresh_per_second=4, transient=True)
        self._stages: dict[str, str] = {}

    def __enter__(self) -> "Live":
        self._live.__enter__()
        return self

    def __exit__(self, *exc: tp.Any) -> None:
        self._live.update("")
        self._live.__exit__(*exc)

    def say(self, text: str) -> None:
        """Print one line above the live ones."""
        self._console.print(text, markup=False, soft_wrap=True)

    def stage(self, environment: str, text: str) -> None:
        """Show what an environment is doing before its workers run."""
        self._stages[environment] = text
        self._draw(self._stages.copy())  # builders call this from threads of their own

    def update(self, report: Report) -> None:
        """Show where the run stands."""
        begun = states(report)
        still = {k: v for k, v in self._stages.copy().items() if k not in report.current and k != "weights"}
        self._draw({**begun, **still})

    def _draw(self, states: dict[str, str]) -> None:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for environment, text in states.items():
            grid.add_row(environment, Text(text))  # a path in it is no markup
        self._live.update(grid)


Progress = Lines | Live


def choose(stream: tp.TextIO | None = None) -> Progress:
    """Return the live view on a terminal, plain lines elsewhere; by default on standard error."""
    stream = stream or sys.stderr
    return Live(stream) if stream.isatty() else Lines(stream)


def states(report: Report) -> dict[str, str]:
    """Return a line for each environment that has begun: model, done/all, failed, x real time, ETA."""
    groups: dict[str, list[ModelCount]] = collections.defaultdict(list)
    for count in report.models.values():
        groups[count.environment].append(count)
    lines = {}
    for environment, counts in groups.items():
        total, left = sum(c.total for c in counts), sum(c.left for c in counts)
        if environment not in report.current:
            if left:
                lines[environment] = f"{'waiting':<18} 0/{left}"
            continue
        now = time.monotonic() if left else report.until[environment]
        elapsed = max(0.1, now - report.since[environment])
        failed = sum(c.failures for c in counts)
        speed = sum(c.audio for c in counts) / elapsed
        eta = f", ETA {duration(elapsed / (total - left) * left)}" if left and total > left else ""
        doing = report.current[environment] if left else "finished"
        failures = f", {failed} failed" if failed else ""
        pace = f", {speed:.1f}x real time" if speed else ""
        lines[environment] = f"{doing:<18} {total - left}/{total}{failures}{pace}{eta}"
    return lines
