"""What is wrong with sources of which arrays were made: flags of records by item, and copies among the items."""

import collections
import typing as tp

from worker import protocol
from worker.protocol import Record

GRAVE = ("truncated", "damaged", "trailing_data", "over_range")  # whose arrays are not of what their user meant
FLAGS = (*GRAVE, "clipped", "silent", "padded", "length_unverified", "other_tracks", "duplicates")

Flagged = dict[str, dict[str, str]]  # flag -> item -> more about it, empty where the flag says all


def find(records: tp.Iterable[Record]) -> Flagged:
    """Return the flagged items of some records, by flag in the order of their weight.

    Which items have the same samples is found here, of these records: in a record it would depend on the others.
    """
    found: Flagged = {flag: {} for flag in FLAGS}
    alike = collections.defaultdict[tuple[str, int, int], set[str]](set)
    for record in records:
        for flag in record.flags:
            if flag in found:
                found[flag][record.item] = _say(flag, record)
        if record.samples:
            alike[record.samples, record.sample_rate, record.channels].add(record.item)
    for items in alike.values():
        if len(items) > 1:
            first, second = sorted(items)[:2]
            others = {item: second if item == first else first for item in items}
            found["duplicates"].update({item: f"same samples as {other}" for item, other in others.items()})
    return {flag: dict(sorted(items.items())) for flag, items in found.items() if items}


def count(flagged: Flagged) -> dict[str, int]:
    """Return the number of items by flag."""
    return {flag: len(items) for flag, items in flagged.items()}


def _say(flag: str, record: Record) -> str:
    if flag == "truncated" and record.declared is not None:
        return f"{record.duration:.3f} s of the {record.declared:.3f} s that it declares"
    if flag == "damaged":
        return "its decoder met errors: where it is damaged, samples are missing or are noise"
    if flag == "trailing_data" and record.declared is not None:
        return f"declares {record.declared:.3f} s, and samples stand behind them; {record.duration:.3f} s were read"
    if flag == "over_range" and record.peak is not None:
        return protocol.say_peak(record.peak)
    return ""
