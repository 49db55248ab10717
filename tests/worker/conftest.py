import contextlib
import json
import os
import sys
import threading

import numpy as np
import pytest
import soundfile

from worker import catalog, regular
from worker.protocol import Channel, Item, Shard, Task
from worker.work import pipeline

MODELS = '''
import dataclasses
import os
import sys
import time
import numpy as np
from worker import Extractor, Output, WholeFile, Windows, choice

HOOK = lambda extractor, batch: None  # tests put theirs here

@dataclasses.dataclass
class Tone(Extractor):
    """Level (times 1, 2, 3 ...) and peak of each 20 ms; misbehaves on audio above 0.9, in the way that `mode` says."""
    environment = "legacy-py37"
    sample_rate = 8000
    batch_size = 2
    mode: str = choice("ok", "raise", "nan", "narrow", "missing", "few", "list", "same", "exit", "memory",
                       "load", "load_exit", "shout", "slow")
    width: int = 2

    def outputs(self):
        level = Output("level", ("time", "feature"), (None, self.width), "", poolable=True, frame_rate=50.0,
                       start=0.01, varies=True)
        return level, Output("peak", ("time",), (None,), "", frame_rate=50.0, start=0.01)

    def framing(self):
        return Windows(1600, 1600, frame_length=160, frame_hop=160, tail="pad")

    def load(self, device, files):
        if self.mode == "load":
            raise OSError(2, "no such checkpoint")
        if self.mode == "load_exit":
            sys.exit(3)

    def extract(self, batch):
        HOOK(self, batch)
        cut = batch.wave[:, 0].reshape(-1, 10, 160)
        level = np.sqrt((cut.astype(np.float64) ** 2).mean(2)).astype(np.float32)
        level = level[..., None] * np.arange(1, self.width + 1, dtype=np.float32)
        arrays = {"level": level, "peak": np.abs(cut).max(2)}
        return self.spoil(arrays) if arrays["peak"].max() > 0.9 else arrays

    def spoil(self, arrays):
        level = arrays["level"]
        if self.mode == "raise":
            raise KeyError("too loud\\nby far")
        if self.mode == "exit":
            sys.exit(0)
        if self.mode == "memory":
            raise MemoryError()
        if self.mode == "shout":
            print('{"kind":"finished"}')
            os.write(1, b'{"kind":"finished"}\\n')
            os.system("echo '{\\"kind\\":\\"finished\\"}'")
        if self.mode == "slow":
            time.sleep(0.05)
        level = {"nan": level * np.nan, "narrow": level[..., :1], "few": level[:, :1], "same": level * 0 + 1,
                 "list": level.tolist()}.get(self.mode, level)
        return {"peak": arrays["peak"]} if self.mode == "missing" else dict(arrays, level=level)

@dataclasses.dataclass
class Whole(Extractor):
    """Sums of both channels at another rate, of the whole file."""
    environment = "legacy-py37"
    sample_rate = 16000
    audio_channels = 2
    memory: int = 0

    def outputs(self):
        return (
            Output("sums", ("channel",), (2,), ""),
            Output("clicks", ("click", "feature"), (None, 2), "", events=True),  # that there are none of
        )

    def framing(self):
        return WholeFile(memory_per_minute=self.memory)

    def load(self, device, files):
        pass

    def extract(self, batch):
        HOOK(self, batch)
        return {"sums": np.abs(batch.wave).sum(2), "clicks": np.zeros((1, 0, 2), np.float32)}

@dataclasses.dataclass
class Cuts(Extractor):
    """The windows themselves, as long as the job says."""
    environment = "legacy-py37"
    sample_rate = 8000
    takes_window = True

    def outputs(self):
        cuts = Output("cuts", ("window", "channel", "time"), (None, 1, None), "", poolable=True, frame_rate=8000.0)
        return cuts, Output("starts", ("chunk",), (None,), "")

    def framing(self):
        samples = int(self.request.window.seconds * 8000)
        return Windows(samples, samples, tail="keep", pad_end=self.request.window.pad)

    def load(self, device, files):
        pass

    def flags(self):
        return ("lossy",)

    def extract(self, batch):
        return {"cuts": batch.wave[:, None], "starts": batch.starts[:, None].astype(np.float32) / 8000}
'''


class Job:
    """Folders, audio and a shard below `folder`; `run` works in this process."""

    def __init__(self, folder):
        self.folder = folder
        self.roots = pipeline.Roots(*[str(folder / name) for name in pipeline.Roots._fields])
        for root in self.roots:
            os.mkdir(root)
        self.items = []
        self.tasks = []

    def add(self, name, seconds=0.5, loud=False, rate=8000, samples=None):
        """Write noise, 16 bits; loud audio has a peak of 0.95."""
        path = self.folder / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if samples is None:
            samples = np.random.RandomState(len(self.items)).uniform(-0.5, 0.5, max(1, int(seconds * rate)))
            samples[-1] = 0.95 if loud else samples[-1]
        with open(str(path), "wb") as f:  # by descriptor: libsndfile wants no names that are not UTF-8
            soundfile.write(f, samples, rate, "PCM_16", format="WAV")
        return self.expect(name)

    def expect(self, name, size=None):
        """Put a path into the shard, whatever is there."""
        path = self.folder / "audio" / name
        status = path.stat() if path.exists() else os.stat(self.roots.audio)
        self.items.append(Item(name, os.path.splitext(name)[0], size or status.st_size, status.st_mtime_ns, []))
        return path

    def model(self, name, extractor="Tone", **settings):
        """Put a model into the shard; `settings` are those of a Task."""
        self.tasks.append(Task(name, "consort_test_models:" + extractor, "key of " + name, **settings))

    def add_three(self, **settings):
        """Put in three files, the middle one loud, and a model that may mind."""
        for name in ("a.wav", "sub/b.wav", "c.wav"):
            self.add(name, loud="b" in name)
        self.model("tone", **settings)

    def shard(self, **settings):
        """Return the shard in which every item lacks every model."""
        names = [task.name for task in self.tasks]
        items = [item if item.tasks else Item(*[*self._plain(item), names]) for item in self.items]
        return Shard("s", 1, "legacy-py37", self.tasks, items, **settings)

    @staticmethod
    def _plain(item):
        return item.id, item.name, item.size, item.mtime_ns

    def run(self, stop=None, channel=None, output=None, **settings):
        """Return the exit code."""
        channel = channel or Channel(str(self.folder / "events.jsonl"))
        roots = self.roots._replace(output=output or self.roots.output)
        try:
            return pipeline.run(self.shard(**settings), roots, channel, stop or threading.Event())
        finally:
            channel.close()

    def events(self, *kinds):
        """Return the events as mappings."""
        events = [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]
        return [event for event in events if not kinds or event["kind"] in kinds]

    def wrote(self):
        """Return what was written as (item, model, output), in order."""
        return [tuple(event["record"][k] for k in ("item", "model", "output")) for event in self.events("wrote")]

    def failures(self):
        """Return {(item, model): class}."""
        return {(e["item"], e["model"]): e["failure"]["kind"] for e in self.events("failed") if "failure" in e}

    def load(self, path):
        """Return an array of the output folder."""
        return np.load(os.path.join(self.roots.output, path), allow_pickle=False)

    def files(self):
        """Return every file below the output folder but the contexts, relative to it."""
        walk = [os.path.join(at, name) for at, _, names in os.walk(self.roots.output) for name in names]
        return sorted(os.path.relpath(p, self.roots.output) for p in walk if not p.endswith(".json"))


@pytest.fixture(scope="session")
def plugins(tmp_path_factory):
    """The folder of the models above."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "consort_test_models.py").write_text(MODELS)
    return str(folder)


@pytest.fixture
def job(tmp_path, plugins, monkeypatch):
    """An empty job whose models can be found."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    catalog.add_plugins([plugins])
    return Job(tmp_path)


@pytest.fixture
def hook(job, monkeypatch):
    """Set what every call of `extract` does first."""
    module = sys.modules.get("consort_test_models") or __import__("consort_test_models")
    return lambda action: monkeypatch.setattr(module, "HOOK", action)


@pytest.fixture
def full_disk():
    """Return a function after which every file that is made takes no byte; as a context it ends."""

    def fill():
        patch = pytest.MonkeyPatch()
        stack = contextlib.ExitStack()
        stack.callback(patch.undo)
        undo.append(stack)
        for name in ("open_file", "create_file"):
            patch.setattr(regular, name, lambda path, *flags: os.open("/dev/full", os.O_WRONLY))
        return stack

    undo = []
    yield fill
    for stack in undo:
        stack.close()
