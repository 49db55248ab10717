"""What a run did: events in, counts, tables and the exit code out."""

import collections
import dataclasses
import json
import time

from orchestrator import errors
from orchestrator.job.items import LeftOut
from orchestrator.output import flagged
from orchestrator.planning.plan import DONE, FAILED, REUSED, WAITING, Plan
from worker import protocol
from worker.protocol import Event, Failure, Record


@dataclasses.dataclass
class ModelCount:
    """The items of one model in this run."""

    environment: str
    total: int = 0  # to do
    done: int = 0
    skipped: int = 0  # done before
    reused: int = 0  # copied from another item: its file was renamed or moved
    known: int = 0  # failed before, not tried again
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    grave: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # of those done, by flag
    waiting: int = 0  # until `consort fit` has made what it needs
    unavailable: str | None = None  # why the model could not run at all
    audio: float = 0.0  # seconds of audio done
    busy: float = 0.0  # seconds its worker spent on them

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def left(self) -> int:
        return max(0, self.total - self.done - self.failures)

    @property
    def speed(self) -> float | None:
        """Audio seconds per second of one worker."""
        return self.audio / self.busy if self.busy > 0 and self.audio > 0 else None


class Report:
    """Grows with the events of a run."""

    def __init__(self, plan: Plan) -> None:
        self.began = time.monotonic()
        self.failures: list[Failure] = []
        self.lost: list[str] = []
        self.interrupted = False
        self.trouble: str | None = None  # why the run had to be given up, and what mends it
        self.tables: list[str] = []  # CSV files that were written beside the arrays
        self.written: list[Record] = []  # in the order in which they came
        self.flagged: flagged.Flagged = {}  # all items of the job, whichever run has done them
        self.random: set[str] = set()  # models whose weights were never trained
        self.left_out: list[LeftOut] = []  # by the scan
        self.others = 0  # items that have arrays of the job's models, and are none of the job's
        self.placement: dict[str, str] = {}  # runtime and devices in words
        self.devices: dict[str, str] = {}  # environment -> what its last worker has computed on
        self.current: dict[str, str] = {}  # environment -> the model it is busy with
        self.since: dict[str, float] = {}  # environment -> when its first worker spoke
        self.until: dict[str, float] = {}  # environment -> when it spoke last
        self._seconds = dict(plan.seconds)
        self._seen: set[tuple[str, str]] = set()
        self.models: dict[str, ModelCount] = {}
        for m in plan.models:
            skipped, reused, known, waiting = (plan.count(m.name, state) for state in (DONE, REUSED, FAILED, WAITING))
            self.models[m.name] = ModelCount(
                m.environment, len(plan.work(m)), skipped=skipped, reused=reused, known=known, waiting=waiting
            )

    def add(self, environment: str, event: Event) -> None:  # noqa: C901 - a case for each kind
        """Take in one event of a worker of `environment`."""
        self.since.setdefault(environment, time.monotonic())
        if event.kind != "heartbeat":
            self.until[environment] = time.monotonic()
        match event.kind:
            case "hello" if event.device:
                self.devices[environment] = event.device
            case "decoded" if event.item:
                self._seconds[event.item] = event.seconds or 0.0
            case "opened" if event.model:
                self.current[environment] = event.model
            case "loading":
                self.current[environment] = f"loading {event.model}"
            case "failed" if event.failure:
                self.fail(event.failure)
            case "wrote" if event.record:
                self._write(event.record, event.seconds or 0.0)
            case "hello" | "decoded" | "opened" | "failed" | "wrote" | "loaded" | "batch_reduced" | "heartbeat":
                pass
            case "device_missing" | "device_lost" | "model_refused" | "output_lost" | "finished":
                pass  # what follows is up to the end of the attempt
            case "progress" | "note" | "fitted":
                pass  # of a fit, which has no report
            case _:
                protocol.refuse_kind(event.kind)

    def _write(self, record: Record, seconds: float) -> None:
        """Take in one array; an item counts once, however many it has."""
        self.written.append(record)
        if (record.item, record.model) not in self._seen:
            count = self.models[record.model]
            self._seen.add((record.item, record.model))
            count.done += 1
            count.grave.update(set(flagged.GRAVE).intersection(record.flags))
            count.audio += self._seconds.get(record.item, 0.0)
            count.busy += seconds

    def fail(self, failure: Failure) -> None:
        """Take in one failed (item, model)."""
        if (failure.item, failure.model) in self._seen:
            return
        self._seen.add((failure.item, failure.model))
        self.failures.append(failure)
        self.models[failure.model].failed[failure.kind] += 1

    def unavailable(self, model: str, why: str) -> bool:
        """Say that a model cannot run; return whether that is news."""
        news = self.models[model].unavailable is None
        self.models[model].unavailable = self.models[model].unavailable or why
        return news

    @property
    def exit_code(self) -> int:
        """How the command ends."""
        counts = self.models.values()
        return errors.exit_code(
            interrupted=self.interrupted,
            unavailable=any(count.unavailable for count in counts),
            lost=bool(self.lost) or any(count.left for count in counts),
            failed=any(count.failures or count.known for count in counts),
        )

    def json(self) -> str:
        """Return the report as it is kept in the run's folder."""
        kept = {
            "exit_code": self.exit_code,
            "seconds": round(time.monotonic() - self.began, 3),
            "models": {name: {**vars(count), "left": count.left} for name, count in self.models.items()},
            "failures": [vars(failure) for failure in self.failures],
            "flags": flagged.count(self.flagged),
            "flagged": self.flagged,
            "lost": self.lost,
            "others": self.others,
            "left_out": [vars(one) for one in self.left_out],
            "random_weights": sorted(self.random),
            "placement": self.placement,
            "devices": self.devices,
        }
        return json.dumps(kept, indent=1) + "\n"

    def rows(self) -> list[tuple[str, ...]]:
        """Return the final table: model, done, skipped, failed by class, x real time."""
        rows: list[tuple[str, ...]] = [("model", "environment", "done", "skipped", "failed", "left", "x real time")]
        for name, count in self.models.items():
            failed = [f"{n} {kind}" for kind, n in sorted(count.failed.items())]
            failed += [f"{count.known} earlier"] if count.known else []
            speed = f"{count.speed:.1f}" if count.speed else "-"
            left = f"{count.left} unavailable" if count.unavailable else str(count.left)
            left = f"{count.waiting} waiting" if count.waiting else left
            grave = ", ".join(f"{n} {flag}" for flag, n in sorted(count.grave.items()))
            done = f"{count.done} ({grave})" if grave else str(count.done)
            reasons = ", ".join(failed) or "0"
            skipped = f"{count.skipped}, {count.reused} reused" if count.reused else str(count.skipped)
            rows.append((name, count.environment, done, skipped, reasons, left, speed))
        return rows
