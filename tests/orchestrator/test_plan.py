"""What is done, what is to do, and how it is cut into shards."""

import collections
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.environments import definitions
from orchestrator.job import spec
from orchestrator.job.items import Source
from orchestrator.output.ledger import Ledger
from orchestrator.planning import keys, plan, shards
from orchestrator.planning.plan import DONE, FAILED, STALE, TODO
from orchestrator.planning.shards import ShardFields
from worker import protocol
from worker.extractors.crepe import Crepe

ITEMS = ["a.wav", "b.wav", "deep/c.wav"]


def states(surveyed, model="prosody"):
    return {choice.source.id: choice.states[model] for choice in surveyed.plan.choices}


def chosen(surveyed):
    return [choice.source.id for choice in surveyed.plan.chosen]


def test_everything_is_to_do_at_first_and_nothing_after_a_run(prepare, work):
    first = prepare(models=["prosody", "crepe"])
    assert states(first) == dict.fromkeys(ITEMS, TODO)
    work(first)
    again = prepare(models=["prosody", "crepe"])
    assert states(again) == states(again, "crepe") == dict.fromkeys(ITEMS, DONE)
    assert chosen(again) == []


def test_a_new_model_finds_its_own_work_alone(prepare, work):
    work(prepare())
    both = prepare(models=["prosody", "crepe"])
    assert [c.missing for c in both.plan.chosen] == [["crepe"]] * 3


def test_another_output_of_a_model_is_to_do(prepare, work):
    work(prepare())
    more = {"name": "prosody", "outputs": ["features", "voiced"]}
    assert states(prepare(models=[more])) == dict.fromkeys(ITEMS, STALE)
    work(prepare(models=[more]))
    assert states(prepare(models=[more])) == states(prepare()) == dict.fromkeys(ITEMS, DONE)


def test_an_array_that_is_gone_or_cut_short_is_made_again(prepare, work):
    surveyed = prepare()
    work(surveyed)
    (surveyed.output.root / "prosody/a.npy").unlink()
    (surveyed.output.root / "prosody/b.npy").write_bytes(b"1")
    assert states(prepare()) == {"a.wav": TODO, "b.wav": STALE, "deep/c.wav": DONE}


def test_a_changed_source_is_made_again_and_a_touched_one_is_not(prepare, work, write_wav, tmp_path):
    work(prepare())
    os.utime(tmp_path / "audio/a.wav", ns=(1, 1))
    write_wav(tmp_path / "audio/b.wav", 77)
    os.utime(tmp_path / "audio/b.wav", ns=(2, 2))
    assert states(prepare()) == {"a.wav": DONE, "b.wav": STALE, "deep/c.wav": DONE}


def test_another_format_is_made_again(prepare, work):
    work(prepare())
    assert states(prepare(models=[{"name": "prosody", "format": "txt"}])) == dict.fromkeys(ITEMS, STALE)


def test_repeating_a_limited_run_goes_on_until_all_is_done(prepare, work):
    seen = []
    for _ in range(4):
        limited = prepare(limit=1, models=["prosody", "crepe"])
        seen += chosen(limited)
        work(limited)
    assert seen == ITEMS
    assert chosen(prepare(limit=0)) == []


def test_a_limit_counts_items_that_lack_any_model(prepare, work):
    work(prepare(limit=2))
    limited = prepare(limit=2, models=["prosody", "crepe"])
    assert [(c.source.id, c.missing) for c in limited.plan.chosen] == [("a.wav", ["crepe"]), ("b.wav", ["crepe"])]


@pytest.mark.parametrize("kind", ["decode", "empty", "nonfinite", "unreadable", "model", "quarantine"])
def test_a_failure_that_would_repeat_is_not_tried_again(prepare, work, kind):
    work(prepare(), failing={("b.wav", "prosody"): kind})
    assert states(prepare()) == {"a.wav": DONE, "b.wav": FAILED, "deep/c.wav": DONE}
    assert chosen(prepare(retry_failed=True)) == ["b.wav"]
    assert chosen(prepare(models=[{"name": "prosody", "params": {"hop_ms": 20}}])) == ITEMS


def test_a_failure_ends_with_its_source(prepare, work, write_wav, tmp_path):
    work(prepare(), failing={("b.wav", "prosody"): "decode"})
    write_wav(tmp_path / "audio/b.wav", 5, seconds=0.02)
    assert chosen(prepare()) == ["b.wav"]


@pytest.mark.parametrize("kind", ["changed", "memory", "write", "timeout", "crash"])
def test_a_failure_that_may_pass_is_tried_again(prepare, work, kind):
    work(prepare(), failing={("b.wav", "prosody"): kind})
    assert chosen(prepare()) == ["b.wav"]


def test_resume_never_does_everything_again(prepare, work):
    work(prepare())
    assert states(prepare(resume="never")) == dict.fromkeys(ITEMS, TODO)


def test_resume_exists_looks_at_files_alone(prepare, work):
    surveyed = prepare()
    work(surveyed, failing={("b.wav", "prosody"): "memory"})
    (surveyed.output.root / "prosody/b.npy").write_bytes(b"")
    other = [{"name": "prosody", "params": {"hop_ms": 20}}]
    assert chosen(prepare(models=other)) == ITEMS
    assert chosen(prepare(models=other, resume="exists")) == []
    (surveyed.output.root / "prosody/a.npy").unlink()
    assert chosen(prepare(resume="exists")) == ["a.wav"]


def test_resume_strict_asks_for_todays_lock_as_well(prepare, work):
    lock = {"lock": definitions.find("torch-cuda").lock_sha256("cpu")}
    work(prepare(), strict=lock)
    assert chosen(prepare(resume="strict")) == []
    work(prepare(resume="never"), strict={"lock": "of last year"})
    assert chosen(prepare()) == []
    assert chosen(prepare(resume="strict")) == ITEMS


def test_an_item_that_comes_later_does_not_take_the_array_of_one_that_is_gone(prepare, work, write_wav, tmp_path):
    surveyed = prepare()
    work(surveyed)
    (tmp_path / "audio/a.wav").unlink()
    write_wav(tmp_path / "audio/a.mp3", 9)
    later = prepare()
    assert {c.source.id: c.name for c in later.plan.choices}["a.mp3"] == "a.mp3"
    ledger = work(later)
    assert len({record.path for record in ledger.records.values()}) == len(ledger.records) == 4


def test_the_same_job_gives_the_same_plan(prepare):
    first, second = prepare(), prepare()
    assert first.plan.choices == second.plan.choices
    assert plan.summary(first.plan, "venv") == plan.summary(second.plan, "venv")
    shared = {"torch-cuda": ShardFields()}
    assert shards.cut(first.plan, "x", 2, shared) == shards.cut(second.plan, "x", 2, shared)


def test_durations_of_earlier_runs_replace_the_estimate(prepare, work):
    assert prepare().plan.seconds["a.wav"] == pytest.approx(0.0127, abs=1e-3)
    work(prepare())
    assert prepare().plan.seconds["a.wav"] == 0.03


def key(hash_of=lambda c: c.sha256, **settings):
    return keys.model_plan(spec.ModelSpec(**{"name": "crepe", **settings}), hash_of).task.key


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"step_ms": 20}},
        {"params": {"model_capacity": "tiny"}},
        {"params": {"viterbi": False}},
        {"dtype": "float16"},
        {"extractor": "prosody"},
        {"extractor": "prosody", "pooling": "mean"},
        {"extractor": "prosody", "pooling": "mean+std"},
        {"extractor": "musicnn"},
        {"extractor": "musicnn", "pooling": "none"},
    ],
)
def test_the_key_changes_with_what_changes_the_numbers(settings):
    others = [{}, {"extractor": "prosody"}, {"extractor": "musicnn"}]
    assert key(**settings) not in [key(**other) for other in others if other != settings]


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"step_ms": 10}},
        {"params": {"backend": "fast"}},
        {"batch_size": 4},
        {"format": "txt"},
        {"outputs": ["pitch", "activation"]},
        {"name": "other", "extractor": "crepe"},
        {"pooling": "none"},
    ],
)
def test_the_key_does_not_change_with_anything_else(settings):
    assert key(**settings) == key()


def test_the_key_changes_with_the_versions_and_the_checkpoint(monkeypatch):
    before = key()
    assert key(lambda c: "0" * 64) != before
    with monkeypatch.context() as patch:
        patch.setattr(Crepe, "version", Crepe.version + 1)
        assert key() != before
    monkeypatch.setattr(protocol, "AUDIO_VERSION", protocol.AUDIO_VERSION + 1)
    assert key() != before


def test_the_key_knows_a_users_checkpoint_by_its_content():
    def mine(path, sha):
        return key(lambda c: sha, extractor="musicnn", params={"checkpoint": path})

    assert mine("/a/my.h5", "1" * 64) == mine("/b/my.h5", "1" * 64) != mine("/a/my.h5", "2" * 64)


def test_a_record_will_name_a_users_checkpoint_by_its_content():
    spec_ = spec.ModelSpec("musicnn", params={"checkpoint": "/a/my.h5"})
    assert keys.model_plan(spec_, lambda c: "1" * 64).task.checkpoint == {"my.h5": "1" * 64}


def test_half_precision_halves_the_estimated_size(prepare):
    full, half = prepare(), prepare(models=[{"name": "prosody", "dtype": "float16"}])
    assert half.plan.bytes() < full.plan.bytes()


class Nothing:
    """A disk on which there is nothing."""

    def sha256(self, source, ledger):
        return ""

    def present(self, path, size):
        return False

    def strict(self, record, model):
        return False


NAMES = ["crepe", "madmom", "musicnn", "prosody"]
JOB = spec.check({"audio": "a", "output": "o", "models": NAMES})
MODELS = [keys.model_plan(m, lambda c: c.sha256) for m in JOB.models]


@given(st.lists(st.floats(0, 10_000), max_size=30), st.integers(1, 16), st.sets(st.sampled_from(NAMES)))
def test_shards_hold_every_lacking_item_and_model_once(lengths, slots, missing):
    sources = [Source(f"{n:02}.wav", 1, 1) for n in range(len(lengths))]
    seconds = {source.id: length for source, length in zip(sources, lengths)}
    made = plan.make(JOB, MODELS, sources, Ledger(), seconds, Nothing())
    ready = {m.environment for m in MODELS if m.name not in missing}
    cut = shards.cut(made, "run", slots, {name: ShardFields() for name in ready})
    pairs = collections.Counter((item.id, task) for shard in cut for item in shard.items for task in item.tasks)
    expected = {(s.id, m.name) for s in sources for m in MODELS if m.environment in ready}
    assert set(pairs) == expected and set(pairs.values()) <= {1}
    assert len({shard.id for shard in cut}) == len(cut)
    for shard in cut:
        assert {task.name for task in shard.tasks} == {name for item in shard.items for name in item.tasks}
        assert all(m.environment == shard.environment for m in MODELS if m.name in {t.name for t in shard.tasks})


def test_models_that_use_no_gpu_leave_it_to_others():
    sources = [Source(f"{n:02}.wav", 1, 1) for n in range(8)]
    made = plan.make(JOB, MODELS, sources, Ledger(), {source.id: 600.0 for source in sources}, Nothing())
    shared = {name: ShardFields("cuda", "cuda") for name in ("tf-cuda", "torch-cuda")}
    cut = shards.cut(made, "run", 4, {**shared, "legacy-py37": ShardFields()}, gpus=2)
    assert {shard.variant for shard in cut if shard.environment != "legacy-py37"} == {"cuda"}
    found = {(shard.device, task.name) for shard in cut for task in shard.tasks}
    assert found == {("cuda", "crepe"), ("cpu", "madmom"), ("cpu", "prosody"), ("cpu", "musicnn")}
    assert sum(shard.device == "cuda" for shard in cut) == 2, "one load of a model for each GPU"


def test_the_backend_that_auto_takes_depends_on_the_device():
    model = Crepe()
    assert model.describe() == {"backend": "fast"}
    assert model.asked(device="cuda").describe() == {"backend": "reference"}


def test_a_limit_goes_on_past_items_that_fail_again_and_again(prepare, work):
    failing = {("a.wav", "prosody"): "decode"}
    work(prepare(limit=1), failing=failing)
    seen = []
    for _ in range(2):
        limited = prepare(limit=1, retry_failed=True)
        seen += chosen(limited)
        work(limited, failing=failing)
    assert seen == ["b.wav", "deep/c.wav"]
    assert chosen(prepare(limit=1, retry_failed=True)) == ["a.wav"]


def test_windows_are_the_same_whether_their_hop_is_said_or_not(prepare):
    def key(**window):
        return prepare(models=[{"name": "encodec", "window": window}]).plan.models[0].task.key

    assert key(seconds=2) == key(seconds=2, hop_seconds=2) == key(seconds=2, pad="reflect")
    assert len({key(seconds=2), key(seconds=4), key(seconds=2, hop_seconds=1), key(seconds=2, pad="zero")}) == 4
