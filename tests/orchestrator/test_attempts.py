"""What follows from the end of a worker: nothing, a rerun, or a quarantine of the guilty alone."""

import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.running.attempts import Attempt, Judge, words
from orchestrator.running.engines.base import Ended
from worker import protocol
from worker.protocol import Event, Failure, Item, Shard, Task

LOG = pathlib.Path("/logs/s.1.log")
TASKS = [Task("m", "crepe", "key of m", batch_size=4), Task("n", "crepe", "key of n")]


def item(name, *tasks):
    return Item(name, name, 1, 2, list(tasks or ("m", "n")))


def shard(*items, attempt=1):
    return Shard("s", attempt, "env", TASKS, list(items))


def ended(code=-11, finished=False, hung=False):
    return Ended(code, finished, hung, LOG)


def wrote(name, model):
    return Event("wrote", item=name, model=model)


def loaded(model):
    return [Event("loading", model=model), Event("loaded", model=model)]


def attempt_of(work, *events):
    attempt = Attempt(work)
    for event in [*loaded("m"), *loaded("n"), *events]:
        attempt.note(event)
    return attempt


def judge():
    return Judge()


def parts(verdict):
    return [[(i.id, *i.tasks) for i in s.items] for s in verdict.shards]


def running(name, model, *ahead):
    """A worker busy with (name, model), while the items in `ahead` are decoded."""
    opened = [Event("opened", item=n) for n in (name, *ahead)]
    return [*opened, Event("decoded", item=name), Event("opened", item=name, model=model)]


def test_what_the_runtime_could_not_do_is_no_fault_of_an_item():
    verdicts = judge()
    work = shard(item("a", "m"))
    lost = dataclasses.replace(ended(125), problem="error waiting for container: unexpected EOF")
    for _ in range(2):
        verdict = verdicts.end(attempt_of(work, *running("a", "m")), lost)
        assert parts(verdict) == [[("a", "m")]] and not verdict.failures
        (work,) = verdict.shards
    verdict = verdicts.end(attempt_of(work, *running("a", "m")), lost)
    assert verdict.lost.startswith("worker ended again and again (error waiting") and not verdict.failures


def test_an_end_with_everything_accounted_for_has_no_consequence():
    attempt = attempt_of(shard(item("a", "m")), wrote("a", "m"), Event("finished"))
    for end in (ended(0, finished=True), ended(-11, finished=True), ended(1)):
        assert judge().end(attempt, end) == judge().end(attempt_of(shard()), ended(0, True))


def test_a_worker_that_says_finished_but_left_items_out_is_lost():
    verdict = judge().end(attempt_of(shard(item("a"))), ended(0, finished=True))
    assert verdict.lost == f"worker left 1 items out; see {LOG}" and not verdict.shards


def test_failed_items_are_accounted_for():
    failure = Event("failed", item="a", model="m", failure=Failure("a", "m", "decode", "", ""))
    attempt = attempt_of(shard(item("a"), item("b")), failure, wrote("b", "n"))
    assert [(i.id, i.tasks) for i in attempt.left()] == [("a", ["n"]), ("b", ["m"])]


def test_a_crash_reruns_its_suspect_alone_and_the_rest_together():
    attempt = attempt_of(shard(item("a"), item("b"), item("c")), wrote("a", "m"), wrote("a", "n"), *running("b", "m"))
    verdict = judge().end(attempt, ended())
    assert parts(verdict) == [[("c", "m", "n")], [("b", "m", "n")]]
    assert not (verdict.failures or verdict.lost or verdict.dropped)
    assert [s.attempt for s in verdict.shards] == [2, 2]


def test_two_crashes_quarantine_the_guilty_pair_alone():
    court = judge()
    first = court.end(attempt_of(shard(item("a"), item("b")), *running("a", "m", "b")), ended())
    assert parts(first) == [[("a", "m", "n")], [("b", "m", "n")]]
    second = court.end(attempt_of(first.shards[0], *running("a", "m")), ended())
    assert [(f.item, f.model, f.kind, f.key) for f in second.failures] == [
        ("a", "m", "quarantine", protocol.key_of("key of m", "", "1:2"))
    ]
    assert "2 times (killed by signal 11); see s.1.log" in second.failures[0].message
    assert parts(second) == [[("a", "n")]] and [t.name for t in second.shards[0].tasks] == ["n"]
    innocent = court.end(attempt_of(first.shards[1], *running("b", "n")), ended())
    assert not innocent.failures and parts(innocent) == [[("b", "m", "n")]]


def test_an_item_that_crashes_the_decoder_is_quarantined_for_all_models():
    court = judge()
    work = shard(item("a"))
    for _ in range(2):
        verdict = court.end(attempt_of(work, Event("opened", item="a")), ended())
        work = verdict.shards[0] if verdict.shards else work
    assert [(f.item, f.model) for f in verdict.failures] == [("a", "m"), ("a", "n")] and not verdict.shards


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (ended(-9, hung=True), "timeout", "no progress within the time limit"),
        (ended(-9), "memory", "killed by signal 9"),
        (ended(137), "memory", "exit code 137"),
        (dataclasses.replace(ended(7), out_of_memory=True), "memory", "out of memory"),
        (ended(1), "quarantine", "exit code 1"),
        (ended(0), "quarantine", "exit code 0"),
    ],
)
def test_the_second_strike_says_what_happened(end, kind, words):
    court, attempt = judge(), attempt_of(shard(item("a", "n")), *running("a", "n"))
    assert not court.end(attempt, end).failures
    (failure,) = court.end(attempt, end).failures
    assert failure.kind == kind and words in failure.message


def test_a_shard_that_ran_out_of_memory_gets_smaller_batches():
    def batches(end):
        verdict = judge().end(attempt_of(shard(item("a")), *running("a", "m")), end)
        return [task.batch_size for task in verdict.shards[0].tasks]

    assert batches(ended(-9)) == [2, 1]
    assert batches(ended(-11)) == batches(ended(-9, hung=True)) == [4, None]


def test_memory_is_no_strike_as_long_as_batches_can_shrink():
    court, work, sizes = judge(), shard(item("a", "m")), []
    for _ in range(4):
        sizes.append(work.tasks[0].batch_size)
        verdict = court.end(attempt_of(work, *running("a", "m")), ended(137))
        if verdict.failures:
            break
        work = verdict.shards[0]
    assert sizes == [4, 2, 1, 1]
    assert [failure.kind for failure in verdict.failures] == ["memory"]


def test_a_model_whose_process_is_killed_while_loading_gets_a_second_chance():
    court, attempt = judge(), Attempt(shard(item("a", "m")))
    attempt.note(Event("loading", model="m"))
    first = court.end(attempt, ended(137))
    assert [s.attempt for s in first.shards] == [2] and not first.dropped
    assert list(court.end(attempt, ended(137)).dropped) == ["m"]


def test_a_worker_that_cannot_be_started_is_lost_with_the_reason():
    court, work = judge(), shard(item("a", "m"))
    end = dataclasses.replace(ended(125), problem="no space left on device")
    for _ in range(3):
        verdict = court.end(Attempt(work), end)
        work = verdict.shards[0] if verdict.shards else work
    assert "again and again (no space left on device)" in verdict.lost


def test_a_model_that_ends_the_process_while_loading_is_dropped_at_once():
    attempt = Attempt(shard(item("a"), item("b", "m")))
    for event in [*loaded("n"), Event("loading", model="m")]:
        attempt.note(event)
    verdict = judge().end(attempt, ended(-6))
    assert verdict.dropped == {"m": f"ended its process while loading (killed by signal 6); see {LOG}"}
    assert parts(verdict) == [[("a", "n")]] and not verdict.failures


def test_a_model_that_cannot_load_takes_its_items_along():
    attempt = attempt_of(shard(item("a"), item("b", "m")), Event("model_refused", model="m", message="no file"))
    assert [(i.id, i.tasks) for i in attempt.left()] == [("a", ["n"])]
    attempt.note(Event("model_refused", model="n", message="no file either"))
    verdict = judge().end(attempt, ended(69))
    assert verdict.dropped == {"m": "no file", "n": "no file either"} and not verdict.shards and not verdict.lost


def test_an_end_for_another_try_goes_on_without_blame():
    attempt = attempt_of(shard(item("a"), item("b")), wrote("a", "m"), *running("a", "n"))
    verdict = judge().end(attempt, ended(75))
    assert parts(verdict) == [[("a", "n"), ("b", "m", "n")]] and not verdict.failures


@pytest.mark.parametrize("code", [-11, 69, 75])
def test_an_end_between_two_items_is_nobodys_fault_but_does_not_go_on_forever(code):
    work, court = shard(item("a")), judge()
    for _ in range(2):
        (work,) = court.end(attempt_of(work), ended(code)).shards
    verdict = court.end(attempt_of(work), ended(code))
    assert verdict.lost == f"worker ended again and again ({words(ended(code))}); see {LOG}"
    assert not verdict.shards


def test_a_shard_that_gets_on_is_not_given_up_however_often_its_worker_ends():
    work, court = shard(*(item(str(n), "m") for n in range(20))), judge()
    for number in range(19):
        verdict = court.end(attempt_of(work, wrote(str(number), "m")), ended(75))
        (work,) = verdict.shards
    assert parts(verdict) == [[("19", "m")]]


def test_a_worker_that_cannot_start_is_lost():
    verdict = judge().end(Attempt(shard(item("a"))), ended(65))
    assert verdict.lost == f"worker could not start: it said nothing; see {LOG}" and not verdict.shards


def test_trouble_with_the_output_is_kept():
    assert attempt_of(shard(item("a")), Event("output_lost", message="disk full")).trouble == "disk full"


NAMES = ["a", "b", "c", "d"]
PAIRS = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "m", "n"])))


@given(PAIRS, st.randoms())
def test_whatever_crashes_all_others_are_done_and_no_two_attempts_share_a_name(guilty, random):
    court, queue, done, quarantined, names = judge(), [shard(*map(item, NAMES))], set(), set(), set()
    while queue:
        work = queue.pop(random.randrange(len(queue)))
        assert f"{work.id}.{work.attempt}" not in names
        names.add(f"{work.id}.{work.attempt}")
        attempt, code = _work(work, guilty, done)
        verdict = court.end(attempt, ended(code, finished=code == 0))
        assert not verdict.lost
        quarantined |= {(f.item, f.model) for f in verdict.failures}
        queue += verdict.shards
    everything = {(name, model) for name in NAMES for model in "mn"}
    assert quarantined == {(n, m) for n, m in everything if {(n, m), (n, "")} & guilty}
    assert done == everything - quarantined


def _work(work, guilty, done):
    """Play a worker that decodes two items ahead and dies at any step in `guilty`."""
    attempt = attempt_of(work)
    opened = 0
    for index, one in enumerate(work.items):
        while opened < min(index + 3, len(work.items)):
            attempt.note(Event("opened", item=work.items[opened].id))
            opened += 1
            if (work.items[opened - 1].id, "") in guilty:
                return attempt, -11
        attempt.note(Event("decoded", item=one.id))
        for task in one.tasks:
            attempt.note(Event("opened", item=one.id, model=task))
            if (one.id, task) in guilty:
                return attempt, -11
            attempt.note(wrote(one.id, task))
            done.add((one.id, task))
    return attempt, 0
