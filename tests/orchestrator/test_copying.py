"""What a run copies instead of computing it."""

import shutil

from orchestrator.running import copying


def test_a_damaged_array_that_was_to_be_copied_is_said_and_computed_again(prepare, work, tmp_path):
    work(prepare())
    shutil.copy(tmp_path / "audio/a.wav", tmp_path / "audio/z.wav")
    surveyed = prepare()
    states = {choice.source.id: choice.states["prosody"] for choice in surveyed.plan.choices}
    assert (states["a.wav"], states["z.wav"]) == ("done", "reused")
    (record,) = [r for r in surveyed.ledger.records.values() if (r.item, r.output) == ("a.wav", "features")]
    (tmp_path / "out" / record.path).write_text("something else")
    said = []
    plan = copying.copy(surveyed, surveyed.output.new_run(), said.append).plan
    assert said == [f"{record.path} is not what was written; it is computed again"]
    assert {choice.source.id for choice in plan.chosen if choice.missing} == {"a.wav", "z.wav"}
