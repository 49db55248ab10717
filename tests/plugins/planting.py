"""A model that swaps something in the output folder for a link or a FIFO, while it is at work."""

import dataclasses
import os
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Extractor, Output, WholeFile, choice


@dataclasses.dataclass
class Planting(Extractor):
    """The peak of the file; on the first one it plants."""

    environment = "legacy-py37"
    sample_rate = 16000

    place: str = "planting"  # below the output folder; EVENTS: the worker's own events
    target: str = ""  # of the link
    kind: str = choice("link", "fifo")
    then: str = choice("go on", "die")

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return `peak` [1]."""
        return (Output("peak", ("feature",), (1,), "largest magnitude"),)

    def framing(self) -> WholeFile:
        """Return the whole file."""
        return WholeFile(memory_per_minute=0)

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Load nothing."""

    def extract(self, batch: Batch) -> Arrays:
        """Return the peak, and plant once."""
        events = os.environ["CONSORT_EVENTS"]
        place = events if self.place == "EVENTS" else os.path.join(os.environ["CONSORT_OUTPUT"], self.place)
        if not os.path.lexists(place + ".gone"):
            if os.path.lexists(place):
                os.rename(place, place + ".gone")
            else:
                open(place + ".gone", "w").close()
            os.mkfifo(place) if self.kind == "fifo" else os.symlink(self.target, place)
            if self.then == "die":
                os._exit(1)
        return {"peak": np.abs(batch.wave[0, 0]).max().reshape(1, 1)}


@dataclasses.dataclass
class Foretelling(Planting):
    """The same, in the places of the next attempt's files."""

    def extract(self, batch: Batch) -> Arrays:
        """Plant links where the shard, events or log of the second attempt will be, and die."""
        output = os.environ["CONSORT_OUTPUT"]
        events = os.path.basename(os.environ["CONSORT_EVENTS"])
        name = events[: -len(".1.jsonl")]
        run = name.partition("-legacy")[0]
        folder = os.path.join(output, ".consort", "runs", run)
        inner = os.path.join(output, ".consort")
        places = {
            "job.log": os.path.join(folder, "logs", "{}.{}.log"),
            "job.shards": os.path.join(folder, "shards", "{}.{}.json"),
            "job.scratch": os.path.join(inner, "scratch", "{}.{}"),
            "job.events": os.path.join(inner, "records", "{}.{}.jsonl"),
        }
        for attempt in (2, 3):
            os.symlink(self.target, places[self.place].format(name, attempt))
        os._exit(1)
