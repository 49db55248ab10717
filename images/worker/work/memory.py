"""How much memory a model may take, asked before it takes it."""

import typing as tp

from worker.errors import TooLarge
from worker.extractor import Extractor


def refuse_what_cannot_fit(extractor: Extractor, duration: float, limit: tp.Optional[int]) -> None:
    """Raise when a model cannot have the memory that it needs for the whole of an item of so many seconds.

    `limit` is in bytes, as the job grants them; None asks the machine what is free.

    Raises:
        TooLarge: more is needed than there is.
    """
    framing = extractor.framing()
    needed = int(framing.memory_per_minute * duration / 60)
    have = limit if limit is not None else available()
    if have is not None and needed > have:
        raise TooLarge(
            "needs about {} MB for {:.0f} minutes of audio, {} MB are free; cut the file, or raise `memory`".format(
                needed >> 20, duration / 60, have >> 20
            )
        )


def available() -> tp.Optional[int]:
    """Return the bytes that this machine can still give, or None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            for line in f:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
