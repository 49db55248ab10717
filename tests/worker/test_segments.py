"""Items that are segments: each file is decoded once, and what a segment gives depends on its samples alone."""

import dataclasses
import os

import numpy as np
import pytest
import soundfile

from worker import segment
from worker.audio import decode, segments, waves
from worker.errors import AudioError
from worker.protocol import key_of
from worker.segment import Segment
from worker.work import decoding

FORMATS = [(8000, 1), (16000, 2), (44100, 2)]


@pytest.mark.parametrize("text", ["1.250-4.000", "0.000-0.1234", "0.000000001-2.000", "3.000-"])
def test_a_text_is_read_and_written_alike(text):
    assert str(segment.read(text)) == text


def test_only_the_key_of_a_segment_holds_its_times():
    plain = key_of("task", "level", "source")
    assert plain == key_of("task", "level", "source", None) != key_of("task", "level", "source", "0.000-1.000")
    assert key_of("task", "level", "source", "0.000-1.000") != key_of("task", "level", "source", "0.000-2.000")


@pytest.fixture
def whole(tmp_path):
    """Return a function that writes samples as a file of 32-bit floats and decodes it, by default as it is."""

    def decoded(samples, formats=(waves.AS_DECODED,), rate=44100, **options):
        path = tmp_path / "{}.wav".format(len(os.listdir(str(tmp_path))))
        soundfile.write(str(path), samples, rate, "FLOAT")
        return decode.decode(str(path), formats, str(tmp_path), **options)

    return decoded


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("limit", [None, 1000])
def test_a_segment_is_a_file_of_its_samples(whole, tmp_path, channels, limit, monkeypatch):
    monkeypatch.setattr(decode, "BLOCK", 10000)
    options = {} if limit is None else {"spool_bytes": limit}
    samples = np.random.RandomState(1).uniform(-1, 1, (100000, channels)).astype(np.float32)
    samples[70000:] = 0
    made = whole(samples, **options)
    for part in (Segment(0.1, 1.50001), Segment(0.0, None), Segment(1.7, 2.0), Segment(2.2675, 2.2680)):
        begin, end = (None if one is None else round(one * 44100) for one in part)
        alone, cut = whole(samples[begin:end], FORMATS), segments.cut(made, part, FORMATS, str(tmp_path), **options)
        assert dataclasses.replace(cut, sha256="", _waves={}) == dataclasses.replace(alone, sha256="", _waves={})
        assert ("silent" in cut.flags) == (part.start > 1.6)
        for wanted in FORMATS:
            np.testing.assert_array_equal(cut.wave(*wanted), alone.wave(*wanted))


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (Segment(0.5, 1.002), "decode"), (Segment(1.0, None), "decode"), (Segment(5.0, 6.0), "decode"),
        (Segment(0.5, 0.50001), "empty"), (Segment(0.25, 0.5), "nonfinite"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_fails_alone(whole, tmp_path, part, kind):
    samples = np.full(8000, 0.25, np.float32)
    samples[3000] = np.nan
    made = whole(samples, rate=8000)
    with pytest.raises(AudioError) as caught:
        segments.cut(made, part, FORMATS, str(tmp_path))
    assert (caught.value.kind, caught.value.sha256) == (kind, made.sha256)
    assert segments.cut(made, Segment(0.5, 1.001), FORMATS, str(tmp_path)).duration == 0.5


def test_a_file_is_decoded_once_for_all_its_segments(job, monkeypatch):
    calls = []
    real = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *a, **k: [calls.append((a[0][-5:], a[1])), real(*a, **k)][1])
    for name in ("a.wav", "b.wav", "c.wav"):
        job.add(name, seconds=0.5)
    a, b, c = (dataclasses.replace(item, tasks=["tone"]) for item in job.items)
    parts = ["0.000-0.200", "0.100-0.300", "0.300-9.000", "0.300-"]
    cut = [dataclasses.replace(a, id="a.wav#" + part, name="a#" + part, segment=part) for part in parts]
    job.items = [a, *cut, b, dataclasses.replace(c, id="c.wav#0.000-0.100", name="c#0", segment="0.000-0.100")]
    job.model("tone")
    job.model("other")
    assert job.run() == 0
    assert calls == [("a.wav", [waves.AS_DECODED]), ("b.wav", [(8000, 1)]), ("c.wav", [waves.AS_DECODED])]
    assert job.failures() == {("a.wav#0.300-9.000", "tone"): "decode"}
    assert [event["item"] for event in job.events("opened") if "model" not in event] == [item.id for item in job.items]
    whole = job.load("tone/a.npy")
    assert len(whole) == 25
    np.testing.assert_allclose(job.load("tone/a#0.100-0.300.npy"), whole[5:15], rtol=1e-6)
    assert len(job.load("tone/a#0.300-.npy")) == 10


def test_what_a_link_leads_to_is_taken_where_the_plan_has_seen_it(job, tmp_path):
    (tmp_path / "blobs").mkdir()
    real = job.add("a.wav").rename(tmp_path / "blobs" / "4f1c") or tmp_path / "blobs" / "4f1c"
    (tmp_path / "blobs" / "link").symlink_to(real)
    (item,) = job.items
    job.items = [
        dataclasses.replace(item, id=name, name=name, tasks=["tone"], target=str(tmp_path / "blobs" / target))
        for name, target in (("one.wav", "4f1c"), ("two.wav", "link"))
    ]
    job.model("tone")
    assert job.run() == 0
    assert [item for item, _, _ in job.wrote()] == ["one.wav"]
    assert job.failures() == {("two.wav", "tone"): "changed"}
