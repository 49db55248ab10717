import dataclasses
import hashlib
import os

import numpy as np
import pytest
import soundfile

from worker import catalog, protocol
from worker.audio import spool
from worker.work import decoding


def test_every_item_is_accounted_for_and_the_numbers_are_right(job):
    job.add_three(outputs=["level", "peak"])
    job.model("whole", "Whole")
    assert job.run() == 0
    assert sorted(job.wrote()) == sorted(
        (item, model, output)
        for item in ("a.wav", "sub/b.wav", "c.wav")
        for model, output in (("tone", "level"), ("tone", "peak"), ("whole", "sums"))
    )
    samples = soundfile.read(os.path.join(job.roots.audio, "sub/b.wav"), dtype="float32")[0].reshape(25, 160)
    np.testing.assert_allclose(job.load("tone/sub/b.npy")[:, 0], np.sqrt((samples**2).mean(1)), rtol=1e-6)
    np.testing.assert_array_equal(job.load("tone.peak/sub/b.npy"), np.abs(samples).max(1))
    assert len(job.files()) == 9
    assert job.events()[-1]["kind"] == "finished"


def test_events_tell_the_story_in_order(job):
    job.add("a.wav")
    job.model("tone")
    job.run()
    events = job.events()
    assert [(e["kind"], e.get("item"), e.get("model")) for e in events] == [
        ("loading", None, "tone"),
        ("loaded", None, "tone"),
        ("opened", "a.wav", None),
        ("decoded", "a.wav", None),
        ("opened", "a.wav", "tone"),
        ("wrote", "a.wav", "tone"),
        ("finished", None, None),
    ]
    record, status = events[5]["record"], os.stat(os.path.join(job.roots.audio, "a.wav"))
    source = {"sha256": record["source"], "size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": 0}
    assert (events[3]["facts"], events[3]["seconds"]) == (source, 0.5)
    assert record["key"] == protocol.key_of("key of tone", "level", record["source"])
    assert os.path.exists(os.path.join(job.roots.output, ".consort/contexts", record["context"] + ".json"))
    expected = {"shape": [25, 2], "dtype": "float32", "axes": ["time", "feature"], "frame_rate": 50.0, "start": 0.01}
    expected.update(duration=0.5, sample_rate=8000, channels=1, flags=[], path="tone/a.npy", item="a.wav")
    assert {name: record[name] for name in expected} == expected


@pytest.mark.parametrize(
    "settings,shape,dtype,axes,suffix",
    [
        ({"pooling": {"level": "mean"}}, [2], "float32", ["feature"], "npy"),
        ({"pooling": {"level": "mean+std"}, "format": "npz"}, [4], "float32", ["feature"], "npz"),
        ({"dtype": "float16"}, [25, 2], "float16", ["time", "feature"], "npy"),
        ({"format": "txt", "params": {"width": 3}}, [25, 3], "float32", ["time", "feature"], "txt"),
    ],
)
def test_settings_of_a_task_reach_its_files(job, settings, shape, dtype, axes, suffix):
    job.add("a.wav")
    job.model("tone", **settings)
    assert job.run() == 0
    record = job.events("wrote")[0]["record"]
    assert (record["shape"], record["dtype"], record["axes"]) == (shape, dtype, axes)
    assert (record["frame_rate"] is None) == (record["start"] is None) == ("pooling" in settings)
    assert job.files() == ["tone/a." + suffix]


@pytest.mark.parametrize("fmt", ["npy", "npz", "txt"])
def test_no_events_are_an_array_without_rows_that_float16_leaves_as_it_is(job, fmt):
    job.add("a.wav")
    job.model("whole", "Whole", outputs=["sums", "clicks"], dtype="float16", format=fmt)
    assert job.run() == 0
    found = {event["record"]["output"]: event["record"] for event in job.events("wrote")}
    assert (found["clicks"]["shape"], found["clicks"]["dtype"]) == ([0, 2], "float32")
    assert found["sums"]["dtype"] == "float16"


def test_file_is_decoded_once_for_all_its_models(job, monkeypatch):
    calls = []
    real = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *a, **k: [calls.append((a[0][-5:], a[1])), real(*a, **k)][1])
    job.add_three()
    job.model("again")
    job.model("whole", "Whole")
    job.model("gone", params={"mode": "load"})
    job.items[0] = dataclasses.replace(job.items[0], tasks=["again"])
    job.items[2] = dataclasses.replace(job.items[2], tasks=["gone"])
    assert job.run() == 0
    assert calls == [("a.wav", [(8000, 1)]), ("b.wav", [(8000, 1), (16000, 2)])]
    assert {w[:2] for w in job.wrote()} == {
        ("a.wav", "again"),
        ("sub/b.wav", "tone"),
        ("sub/b.wav", "again"),
        ("sub/b.wav", "whole"),
    }


def test_bad_files_fail_for_each_model_and_the_others_go_on(job):
    job.add("a.wav")
    job.expect("missing.wav")
    (job.folder / "audio/empty.wav").write_bytes(b"")
    (job.folder / "audio/text.wav").write_text("<html>")
    job.add("changed.wav")
    job.items[-1] = dataclasses.replace(job.items[-1], size=7)
    job.add("silence.wav", samples=np.zeros((0, 1)))
    job.expect("empty.wav")
    job.expect("text.wav")
    job.add("z.wav")
    job.model("tone")
    job.model("whole", "Whole")
    assert job.run() == 0
    kinds = {"missing": "unreadable", "empty": "empty", "text": "decode", "changed": "changed", "silence": "empty"}
    assert job.failures() == {(n + ".wav", m): k for n, k in kinds.items() for m in ("tone", "whole")}
    assert {w[0] for w in job.wrote()} == {"a.wav", "z.wav"}
    for event in job.events("failed"):
        item = next(item for item in job.items if item.id == event["item"])
        source = event["facts"]["sha256"] or "{}:{}".format(item.size, item.mtime_ns)
        assert event["failure"]["key"] == protocol.key_of("key of " + event["model"], "", source)


def test_file_that_only_lacks_ffmpeg_is_tried_again(job, monkeypatch):
    monkeypatch.delenv("CONSORT_FFMPEG", raising=False)
    job.add("good.wav")
    (job.folder / "audio/a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    job.expect("a.m4a")
    job.model("tone")
    assert job.run() == 0
    (failed,) = job.events("failed")
    assert failed["failure"]["kind"] == "decode" and "consort weights pull ffmpeg" in failed["failure"]["message"]
    assert failed["failure"]["key"] == "", "handled failures have the key of what would have to change"


MISDEEDS = [
    ("raise", "model", "KeyError: 'too loud\\nby far'"),
    ("exit", "model", "SystemExit: 0"),
    ("nan", "nonfinite", "level has values that are not finite"),
    ("narrow", "model", "level has shape (2, 10, 1), expected (2, 10, 2)"),
    ("few", "model", "level has shape (2, 1, 2), expected (2, 10, 2)"),
    ("missing", "model", "the extractor returned peak, and before: level, peak"),
    ("list", "model", "AttributeError: 'list' object has no attribute 'shape'"),
    ("memory", "memory", "not enough memory"),
]


@pytest.mark.parametrize("mode,kind,words", MISDEEDS)
def test_model_that_fails_fails_its_item_alone(job, mode, kind, words):
    job.add_three(params={"mode": mode})
    job.model("other")
    assert job.run() == 0
    assert job.failures() == {("sub/b.wav", "tone"): kind}
    assert job.events("failed")[0]["failure"]["message"] == words
    assert len(job.wrote()) == 5


def test_equal_values_everywhere_fail_for_audible_audio_only(job):
    job.add("a.wav", samples=np.full(1600, 0.95))
    job.add("b.wav", samples=np.zeros(1600))
    job.model("tone", params={"mode": "same"})
    assert job.run() == 0
    assert job.failures() == {("a.wav", "tone"): "model"}
    assert job.events("wrote")[0]["record"]["flags"] == ["silent"]


def test_audio_that_is_too_short_is_padded_and_flagged(job):
    job.add("a.wav", samples=np.full(3, 0.5))
    job.model("tone", pooling={"level": "mean"})
    job.model("whole", "Whole")
    assert job.run() == 0
    assert [e["record"]["flags"] for e in job.events("wrote")] == [["padded"], []]


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"params": {"mode": "load"}}, "[Errno 2] no such checkpoint"),
        ({"params": {"mode": "load_exit"}}, "SystemExit: 3"),
        ({"params": {"mood": "ok"}}, "params.mood: unknown key; did you mean mode?; known keys: mode, width"),
        ({"outputs": ["levle"]}, "outputs: 'levle': unknown output; did you mean level?; known outputs: level, peak"),
    ],
)
def test_model_that_cannot_load_is_dropped_and_the_others_finish(job, settings, words):
    job.add_three()
    job.model("bad", **settings)
    assert job.run() == 0
    (refused,) = job.events("model_refused")
    assert (refused["model"], refused["message"], refused.get("item")) == ("bad", words, None)
    assert {w[1] for w in job.wrote()} == {"tone"}
    assert len(job.wrote()) == 3


def test_without_any_model_nothing_is_opened(job):
    job.add_three(params={"mode": "load"})
    job.model("other", "Nothing")
    assert job.run() == protocol.EXIT_NO_MODEL
    assert [e["kind"] for e in job.events()] == ["loading", "model_refused"] * 2


def write_weights(job):
    """Put a file below the weights, and one of the user's own; return what a task says of them."""
    for path in (os.path.join(job.roots.weights, "pypi", "w.bin"), str(job.folder / "mine.h5")):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(path.encode())
    own = str(job.folder / "mine.h5")
    hashes = {n: hashlib.sha256(p.encode()).hexdigest() for n, p in
              (("a/w.bin", os.path.join(job.roots.weights, "pypi/w.bin")), ("mine.h5", own))}  # fmt: skip
    return {"files": {"a/w.bin": "pypi/w.bin", own: own}, "checkpoint": hashes}


def test_checkpoints_are_found_below_the_weights_or_where_the_user_says(job, monkeypatch):
    seen = {}

    def load(self, device, files):
        for name, path in files.items():
            with open(path) as f:
                seen[name] = path, f.read()

    job.add_three(**write_weights(job))
    monkeypatch.setattr(catalog.find("consort_test_models:Tone"), "load", load)
    assert job.run() == 0
    own = str(job.folder / "mine.h5")
    assert [content for _, content in seen.values()] == [os.path.join(job.roots.weights, "pypi/w.bin"), own]
    assert seen["a/w.bin"][0].endswith("/a/w.bin") and seen[own][0].endswith("/mine.h5")
    assert not os.path.exists(seen[own][0])  # nothing of it stays


def test_weights_that_nobody_has_named_are_no_weights(job):
    job.add_three(**{**write_weights(job), "checkpoint": {"mine.h5": "0" * 64}})
    assert job.run() == 0  # every item is accounted for
    assert set(job.failures().values()) == {"changed"} and len(job.failures()) == 3
    assert [event["kind"] for event in job.events()] == ["loading", "failed", "failed", "failed", "finished"]
    assert all(event["failure"]["key"] == "" for event in job.events("failed"))  # the next run tries again


def test_an_error_about_weights_names_the_path_that_the_user_knows(job, monkeypatch):
    def load(self, device, files):
        raise ValueError("{}: is damaged".format(list(files.values())[1]))

    job.add_three(**write_weights(job))
    monkeypatch.setattr(catalog.find("consort_test_models:Tone"), "load", load)
    assert job.run() == protocol.EXIT_NO_MODEL
    (refused,) = job.events("model_refused")
    assert refused["message"] == "{}: is damaged".format(job.folder / "mine.h5")


def test_links_must_not_lead_out_of_the_audio_folder(job, tmp_path):
    inside = job.add("a.wav")
    outside = tmp_path / "secret.wav"
    inside.rename(outside)
    job.items.clear()
    inside = job.add("real.wav")
    (inside.parent / "out.wav").symlink_to(outside)
    (inside.parent / "in.wav").symlink_to("real.wav")
    for name in ("out.wav", "in.wav", "../secret.wav"):
        job.expect(name)
    job.model("tone")
    assert job.run() == 0
    assert job.failures() == {("out.wav", "tone"): "unreadable", ("../secret.wav", "tone"): "unreadable"}
    assert [w[0] for w in job.wrote()] == ["real.wav", "in.wav"]


def test_item_that_needs_too_much_memory_is_refused_before_it_starts(job, hook):
    called = []
    hook(lambda extractor, batch: called.append(type(extractor).__name__))
    job.add("a.wav", seconds=3)
    job.model("whole", "Whole", params={"memory": 1 << 30})
    job.model("tone")
    assert job.run(memory=10 << 20) == 0
    assert job.failures() == {("a.wav", "whole"): "memory"}
    assert job.events("failed")[0]["failure"]["message"].startswith("needs about 51 MB")
    assert set(called) == {"Tone"}


def test_long_item_goes_through_the_disk(job, monkeypatch):
    made = []
    real = spool.allocate
    monkeypatch.setattr(spool, "allocate", lambda *a: [made.append(real(*a)), made[-1]][1])
    job.add("a.wav", seconds=1)
    job.model("tone", params={"width": 340000}, pooling={"level": "first"})
    assert job.run() == 0
    spooled = [array for array in made if not array.flags.owndata]
    assert [array.shape for array in spooled] == [(50, 340000)]
    np.testing.assert_array_equal(job.load("tone/a.npy"), spooled[0][0])
    assert os.listdir(job.roots.scratch) == []


@pytest.mark.parametrize("settings,sizes", [({"batch_size": 3}, {3}), ({}, {2})])
def test_batch_has_the_size_of_the_task_or_else_of_the_model(job, hook, settings, sizes):
    seen = set()
    hook(lambda extractor, batch: seen.add(len(batch.wave)))
    job.add_three(**settings)
    assert job.run() == 0
    assert seen == sizes


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 50}, {}])
def test_bytes_do_not_depend_on_the_batch_or_on_the_run(job, tmp_path, change):
    job.add_three(outputs=["level", "peak"])
    job.add("odd.wav", seconds=1.234, rate=11025)
    records = []
    for output in ("first", "second"):
        (tmp_path / output).mkdir()
        assert job.run(output=str(tmp_path / output)) == 0
        records.append([event["record"] for event in job.events("wrote")])
        (tmp_path / "events.jsonl").unlink()
        job.tasks = [dataclasses.replace(task, **change) for task in job.tasks]
    assert len(records[0]) == 8
    assert records[0] == records[1]
