import dataclasses

import pytest

from worker.errors import TooLarge
from worker.extractor import Extractor, WholeFile, Windows
from worker.work import memory

MB = 1 << 20


@dataclasses.dataclass
class Hungry(Extractor):
    environment = "legacy-py37"
    sample_rate = 16000

    windowed: bool = False

    def outputs(self):
        return ()

    def framing(self):
        return Windows(400, 160, memory_per_minute=10 * MB) if self.windowed else WholeFile(10 * MB)

    def load(self, device, files):
        pass

    def extract(self, batch):
        return {}


@pytest.mark.parametrize("windowed", [False, True])
def test_what_does_not_fit_is_refused_with_both_numbers(windowed):
    with pytest.raises(TooLarge) as caught:
        memory.refuse_what_cannot_fit(Hungry(windowed), 600.0, 99 * MB)
    words = "needs about 100 MB for 10 minutes of audio, 99 MB are free; cut the file, or raise `memory`"
    assert str(caught.value) == words


@pytest.mark.parametrize("duration,limit", [(600.0, 100 * MB), (600.0, None), (0.0, 0)])
def test_what_fits_is_let_through(duration, limit):
    memory.refuse_what_cannot_fit(Hungry(), duration, limit)


def test_without_a_limit_the_machine_is_asked(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 5 * MB)
    with pytest.raises(TooLarge, match="5 MB are free"):
        memory.refuse_what_cannot_fit(Hungry(), 60.0, None)
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.refuse_what_cannot_fit(Hungry(), 1e9, None)


def test_a_limit_of_zero_is_no_missing_limit():
    with pytest.raises(TooLarge):
        memory.refuse_what_cannot_fit(Hungry(), 60.0, 0)


def test_free_memory_is_plausible():
    free = memory.available()
    assert free is None or MB < free < 1 << 50
