"""Models that misbehave on one file of five: what is said of it, and that nobody else suffers."""

import harness
import pytest
from harness import BAD, TONE, failures, naughty, written

GOOD = [f"good_{n:02d}.wav" for n in range(4)]
EVERYTHING = {("tone", item) for item in [*GOOD, "good_01b.wav"]} | {("naughty", item) for item in GOOD}
GUILTY = ("naughty", "good_01b.wav")


def run(output, audio, mode, *flags, models=(TONE,), **keys):
    """Run tone and the naughty model over four good files and the guilty one in their middle."""
    if not any(audio.iterdir()):
        harness.write_wavs(audio, 4)
        harness.write_wav(audio / GUILTY[1], BAD)
    params = keys.pop("params", {})
    job = harness.write_job(output, audio, *models, naughty(mode, **params), **keys)
    return harness.consort("extract", job, *flags, timeout=120)


@pytest.mark.parametrize("mode", ["print", "child"])
def test_prints_of_any_kind_change_nothing(mode, output, audio):
    done = run(output, audio, mode)
    assert done.returncode == 0, done.stderr
    assert written(output) == EVERYTHING | {GUILTY}
    assert "half a line" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("raise", "model", "this one is too loud"),
        ("exit", "model", "SystemExit"),
        ("recursion", "model", "recursion"),
        ("shape", "model", "sums has shape"),
        ("empty", "model", "sums"),
        ("missing", "model", "did not return sums"),
        ("nan", "nonfinite", "not finite"),
    ],
)
def test_a_model_that_fails_on_one_item_fails_that_item_alone(mode, kind, words, output, audio):
    done = run(output, audio, mode)
    assert done.returncode == 1, done.stderr
    assert written(output) == EVERYTHING
    assert failures(output) == {GUILTY: kind}
    (line,) = [line for line in done.stdout.splitlines() if "good_01b.wav" in line]
    assert kind in line and words in line
    assert len(harness.launched(output)) == 1, "no process needs to be started again"


@pytest.mark.parametrize("mode", ["segv", "abort", "os_exit", "os_exit_69"])
def test_a_death_twice_over_one_item_is_quarantined_and_not_tried_again(mode, output, audio):
    done = run(output, audio, mode)
    assert done.returncode == 1, done.stderr
    assert written(output) == EVERYTHING
    assert failures(output) == {GUILTY: "quarantine"}
    assert harness.leftovers(output) == []
    again = run(output, audio, mode)
    assert again.returncode == 1
    assert harness.launched(output) == []
    assert "1 earlier" in again.stdout


def test_quarantine_ends_when_the_parameters_change_or_on_demand(output, audio):
    assert run(output, audio, "abort").returncode == 1
    assert run(output, audio, "abort", "--retry-failed").returncode == 1
    assert harness.launched(output) != []
    assert failures(output) == {GUILTY: "quarantine"}
    assert run(output, audio, "none").returncode == 0
    assert written(output) == EVERYTHING | {GUILTY}
    assert failures(output) == {}


@pytest.mark.parametrize("mode", ["segv", "kill", "hang"])
def test_a_first_death_is_forgiven(mode, output, audio, tmp_path):
    done = run(output, audio, mode, params={"once": str(tmp_path / "once")}, timeout_per_item=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(output) == EVERYTHING | {GUILTY}
    assert harness.leftovers(output) == []


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [("hang", "timeout", "time limit"), ("kill", "memory", "signal 9"), ("memory", "memory", "llocate")],
)
def test_what_may_have_been_the_machine_is_tried_again_by_the_next_run(mode, kind, words, output, audio):
    done = run(output, audio, mode, timeout_per_item=2)
    assert done.returncode == 1, done.stderr
    assert written(output) == EVERYTHING
    assert failures(output) == {GUILTY: kind}
    assert words in done.stdout
    assert harness.status(output)["models"]["naughty"]["pending"] == 1
    assert run(output, audio, mode, timeout_per_item=2).returncode == 1
    assert harness.launched(output) != []


@pytest.mark.parametrize(("mode", "words"), [("load", "its weights are damaged"), ("load_segv", "while loading")])
def test_a_model_that_cannot_load_leaves_the_others_alone(mode, words, output, audio):
    done = run(output, audio, mode)
    assert done.returncode == 3, done.stderr
    assert written(output) == {(model, item) for model, item in EVERYTHING | {GUILTY} if model == "tone"}
    lines = [line for line in done.stderr.splitlines() if words in line]
    assert len(lines) == 1 and "naughty" in lines[0]
    assert failures(output) == {}, "nothing is marked as handled"
    assert harness.status(output)["models"]["naughty"]["pending"] == 5


def test_a_model_that_cannot_load_and_is_alone(output, audio):
    done = run(output, audio, "load", models=())
    assert done.returncode == 3, done.stderr
    assert "its weights are damaged" in done.stderr


def test_loading_may_take_longer_than_an_item(output, audio):
    done = run(output, audio, "load_slow", timeout_per_item=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(output) == EVERYTHING | {GUILTY}


def test_several_guilty_items_and_models_in_one_shard(output, audio):
    harness.write_wavs(audio, 6, seconds=0.2)
    guilty = ["a.wav", "good_02b.wav", "good_04b.wav", "zz.wav"]
    for item in guilty:
        harness.write_wav(audio / item, BAD, 0.2)
    second = {**naughty("os_exit"), "name": "second"}
    done = run(output, audio, "segv", models=(second, {**TONE, "params": {"pause": 0.01}}))
    assert done.returncode == 1, done.stdout + done.stderr
    items = {path.name for path in audio.iterdir()}
    fine = {("tone", item) for item in items}
    fine |= {(model, item) for model in ("naughty", "second") for item in items - set(guilty)}
    assert written(output) == fine
    assert failures(output) == {(model, item): "quarantine" for model in ("naughty", "second") for item in guilty}
    assert harness.leftovers(output) == []


def test_a_death_leaves_no_half_written_array_behind(output, audio):
    """What was finished a moment before the death still waited for its commit."""
    harness.write_wavs(audio, 1)
    harness.write_wav(audio / "good_01.wav", BAD)
    done = run(output, audio, "kill", params={"once": str(output.with_name("once"))})
    assert done.returncode == 0, done.stderr
    assert len(harness.launched(output)) > 1, "the death must have happened"
    assert harness.leftovers(output) == []


def test_the_log_says_what_the_model_printed_before_it_died(output, audio):
    run(output, audio, "abort")
    logs = "".join(path.read_text("utf-8", "replace") for path in (harness.runs(output)[-1] / "logs").iterdir())
    assert "Fatal Python error" in logs
