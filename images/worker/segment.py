"""A part of an audio file that is an item of its own: from one time to another, in seconds."""

import typing as tp


class Segment(tp.NamedTuple):
    """Where it begins and ends; its text, such as `1.250-4.000`, ends the item's id after a `#` and enters its key."""

    start: float
    end: tp.Optional[float]  # None: where the file does

    def __str__(self) -> str:
        return "{}-{}".format(_text(self.start), "" if self.end is None else _text(self.end))

    def samples(self, rate: int) -> tp.Tuple[int, tp.Optional[int]]:
        """Return the numbers of its first sample and of that behind its last one, at `rate` Hz."""
        return round(self.start * rate), None if self.end is None else round(self.end * rate)


def read(text: str) -> Segment:
    """Return the segment of a text that one has given."""
    start, _, end = text.partition("-")
    return Segment(float(start), float(end) if end else None)


def _text(seconds: float) -> str:
    """Return milliseconds where these say it all, else nanoseconds."""
    text = "{:.3f}".format(seconds)
    return text if float(text) == seconds else "{:.9f}".format(seconds).rstrip("0")
