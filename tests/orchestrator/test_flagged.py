"""What is told of sources that are not what they should be."""

from orchestrator.output import flagged


def test_copies_are_found_among_the_records_and_old_records_are_none(record):
    twins = [record(item=name, samples="s", model=model) for name in ("b.wav", "a.flac") for model in ("crepe", "x")]
    others = [record(item="c.wav", samples="s", sample_rate=8000), record(item="d.wav"), record(item="e.wav")]
    assert flagged.find(twins + others) == {
        "duplicates": {"a.flac": "same samples as b.wav", "b.wav": "same samples as a.flac"}
    }


def test_flags_are_told_by_their_weight_with_what_the_record_knows(record):
    records = [
        record(item="b.wav", flags=["padded", "truncated"], declared=2.0, duration=0.5),
        record(item="a.wav", flags=["truncated"]),  # of version 0.4
        record(item="a.wav", flags=["cpu_fallback", "over_range"], peak=9830.1),
    ]
    found = flagged.find(records)
    assert list(found) == ["truncated", "over_range", "padded"]
    assert found["truncated"] == {"a.wav": "", "b.wav": "0.500 s of the 2.000 s that it declares"}
    assert "peaks at 9830," in found["over_range"]["a.wav"]
