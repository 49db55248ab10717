"""Framings beyond plain windows: tails that are kept, blocks with a state, one array per window."""

import dataclasses
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import catalog, request, schema
from worker.errors import Interrupted, SchemaError
from worker.extractor import Extractor, Output, Stream, WindowChoice, Windows
from worker.work import contexts, extraction, windows

HOP = 4  # samples per frame of the models here


def ramp(samples, channels=1):
    """Return `[C, T]` in which every sample is another number, and none is zero."""
    return 1 + np.arange(channels * samples, dtype=np.float32).reshape(channels, samples)


def starts_and_lengths(samples, framing):
    cut = windows.cut(ramp(samples), framing)
    return list(cut.starts), list(cut.lengths)


@pytest.mark.parametrize(
    "samples,tail,expected",
    [
        (20, "keep", ([0, 10], [10, 10])),
        (21, "keep", ([0, 10, 20], [10, 10, 1])),
        (5, "keep", ([0], [5])),
        (20, "every", ([0, 10], [10, 10])),
        (1, "every", ([0], [1])),
    ],
)
def test_kept_tails_of_windows_that_touch(samples, tail, expected):
    assert starts_and_lengths(samples, Windows(10, 10, tail=tail)) == expected


def test_keep_covers_the_audio_and_every_begins_at_each_hop():
    # 10 samples every 8: two windows cover 18 samples, a third one begins all the same with `every`
    assert starts_and_lengths(18, Windows(10, 8, tail="keep")) == ([0, 8], [10, 10])
    assert starts_and_lengths(18, Windows(10, 8, tail="every")) == ([0, 8, 16], [10, 10, 2])
    assert starts_and_lengths(16, Windows(10, 8, tail="every")) == ([0, 8], [10, 8])


@pytest.mark.parametrize("how", ["zero", "reflect"])
@pytest.mark.parametrize("samples", [13, 11, 4, 1])
def test_behind_a_kept_tail_stands_what_the_framing_says(how, samples):
    cut = windows.cut(ramp(samples), Windows(10, 10, tail="keep", pad_end=how))
    (batch, counts) = next(iter(windows.batches(cut, len(cut.lengths))))
    whole = np.pad(ramp(samples)[0], (0, 20), "constant" if how == "zero" or samples == 1 else "reflect")
    if how == "reflect" and samples == 1:
        whole = np.full(21, ramp(1)[0, 0])
    np.testing.assert_array_equal(batch.wave[:, 0].ravel(), whole[: batch.wave.size])
    assert counts == [1] * len(cut.lengths) and cut.padded


def test_windows_that_are_full_are_not_flagged_as_padded():
    assert not windows.cut(ramp(20), Windows(10, 10, tail="keep")).padded
    assert not windows.cut(ramp(18), Windows(10, 8, tail="every")).padded


def test_the_last_window_holds_as_much_as_the_model_needs():
    framing = Windows(12, 12, frame_length=4, frame_hop=2, least=7)
    assert starts_and_lengths(24 + 6, framing) == ([0, 12], [12, 12])
    assert starts_and_lengths(24 + 7, framing) == ([0, 12, 24], [12, 12, 7])
    short = windows.cut(ramp(3), framing)
    assert short.padded and short.wave.shape == (1, 7) and short.frames == [2]


@dataclasses.dataclass
class Sums(Extractor):
    """Running sum of each frame with all before it, and what the model was shown."""

    environment = "legacy-py37"
    sample_rate = 8000
    block: int = 8
    left: int = 3

    def outputs(self):
        return (Output("sums", ("time",), (None,), "", frame_rate=8000 / HOP),)

    def framing(self):
        return Stream(self.block, HOP, self.left)

    def load(self, device, files):
        self.seen = []

    def extract(self, batch):
        self.seen.append((int(batch.starts[0]), batch.wave.shape[2]))
        begin = batch.state.get("end", 0)
        new = batch.wave[0, 0, begin - int(batch.starts[0]) :]
        batch.state["end"] = begin + len(new)
        frames = np.pad(new, (0, -len(new) % HOP), "constant").reshape(-1, HOP).sum(1)
        total = batch.state.get("total", 0.0) + np.cumsum(frames, dtype=np.float64)
        batch.state["total"] = total[-1]
        return {"sums": total[None]}


def run(model, wave, scratch="."):
    model.load("cpu", {})
    return extraction.extract(model, wave, 1, str(scratch), threading.Event())


@given(st.integers(1, 60), st.sampled_from([4, 8, 20]), st.integers(0, 9))
def test_a_stream_equals_the_whole_audio_whatever_its_blocks(samples, block, left):
    wave = ramp(samples)
    frames = np.pad(wave[0], (0, -samples % HOP), "constant").reshape(-1, HOP).sum(1)
    found, padded = run(Sums(block, left), wave)
    np.testing.assert_allclose(found["sums"], np.cumsum(frames))
    assert not padded


def test_blocks_see_the_end_of_those_before_them_again():
    model = Sums()
    run(model, ramp(20))
    assert model.seen == [(0, 8), (5, 11), (13, 7)]


def test_the_state_of_one_item_is_not_seen_by_the_next():
    model = Sums()
    first, _ = run(model, ramp(20))
    again, _ = run(model, ramp(20))
    np.testing.assert_array_equal(first["sums"], again["sums"])


def test_a_block_that_returns_another_number_of_frames_is_an_error():
    class Short(Sums):
        def extract(self, batch):
            return {"sums": super().extract(batch)["sums"][:, 1:]}

    with pytest.raises(ValueError, match="sums has shape"):
        run(Short(), ramp(20))


def test_a_stream_ends_between_blocks_when_it_is_asked_to():
    model, stop = Sums(), threading.Event()
    model.load("cpu", {})
    stop.set()
    with pytest.raises(Interrupted):
        extraction.extract(model, ramp(20), 1, ".", stop)


@pytest.mark.parametrize(
    "window", [{"seconds": 0}, {"seconds": 2, "hop_seconds": 3}, {"seconds": 2, "hop_seconds": 0}, {"seconds": 4000}]
)
def test_windows_that_cannot_be_are_refused(window):
    with pytest.raises(SchemaError, match="seconds must lie"):
        schema.build(WindowChoice, window, "window")


def test_a_model_that_sets_its_framing_takes_no_window():
    with pytest.raises(SchemaError, match=r"models\[0\].window: crepe does not take one"):
        catalog.build("crepe", {}, request.read(window={"seconds": 1}), "models[0]")


def test_provenance_is_read_beside_the_weights_and_flags_random_ones(tmp_path):
    assert contexts.read([str(tmp_path / "w.pt")]) == {}
    (tmp_path / "PROVENANCE.json").write_text(json.dumps({"weights": "random-init", "seed": 3}))
    said = contexts.read([str(tmp_path / "w.pt"), str(tmp_path / "config.json")])
    assert said == {"weights": "random-init", "seed": 3}
    assert contexts.flags(said) == ("random_weights",)
    assert contexts.flags({"weights": "fine-tuned"}) == ()


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_provenance_is_an_error(tmp_path, text):
    (tmp_path / "PROVENANCE.json").write_text(text)
    with pytest.raises(ValueError, match=r"PROVENANCE.json: .*mend it"):
        contexts.read([str(tmp_path / "w.pt")])


def test_every_window_gets_a_file_and_a_record_of_its_own(job):
    job.add("song.wav", seconds=0.5)
    window = {"seconds": 0.2, "pad": "reflect"}
    job.model("cuts", "Cuts", outputs=["cuts", "starts"], layout="per-window", window=window, format="txt")
    assert job.run() == 0
    records = [event["record"] for event in job.events("wrote")]
    assert job.files() == ["cuts.starts/song.txt", *["cuts/song_frag{}.txt".format(n) for n in range(3)]]
    parts = [(r["window"], r["windows"], r["shape"], r["axes"]) for r in records if r["output"] == "cuts"]
    assert parts[::-1] == [(n, 3, [1, 1600], ["channel", "time"]) for n in range(3)]
    assert len({r["key"] for r in records}) == 2
    assert all(r["flags"] == ["lossy", "padded"] for r in records)
    (whole,) = [r for r in records if r["output"] == "starts"]
    assert "window" not in whole or whole["window"] is None
    np.testing.assert_allclose(np.loadtxt(job.roots.output + "/cuts.starts/song.txt", delimiter=","), [0, 0.2, 0.4])


def test_without_that_layout_the_windows_stay_together(job):
    job.add("song.wav", seconds=0.5)
    job.model("cuts", "Cuts", window={"seconds": 0.2}, pooling={"cuts": "mean"})
    assert job.run() == 0
    (record,) = [event["record"] for event in job.events("wrote")]
    assert (record["path"], record["shape"], record["axes"]) == ("cuts/song.npy", [3, 1], ["window", "channel"])
