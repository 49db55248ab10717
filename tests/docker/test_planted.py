"""A plug-in in a container that plants links: the host does not follow them, in this run or in the next."""

import pathlib

import harness
import pytest
from victims import Victim, refused


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (".consort", "absolute"),
        (".consort/scratch", "relative"),
        (".consort/records", "fifo"),
        ("planting", "absolute"),
    ],
)
def test_what_a_container_swaps_in_is_not_followed_on_the_host(place, kind, audio, output, tmp_path):
    harness.write_wavs(audio, 2)
    victim = Victim(tmp_path / "victim")
    where = output / pathlib.Path(place).parent
    params = {"place": place, "target": victim.target(where, kind), "kind": "fifo" if kind == "fifo" else "link"}
    model = {"name": "planting", "extractor": "planting:Planting", "params": params}
    job = harness.write_job(output, audio, model, runtime="docker")
    for _ in range(2):
        refused(harness.consort("extract", job, timeout=120), place)
        assert victim.unharmed()
