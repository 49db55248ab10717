"""What becomes of a run whose GPUs are of no use: every way from a fault to a decision."""

import pathlib

import pytest

from orchestrator.environments.devices import Gpu, Grant
from orchestrator.running.attempts import Attempt
from orchestrator.running.engines.base import Ended
from orchestrator.running.gpus import Decision, Gpus
from orchestrator.running.placement import Placement
from orchestrator.running.runtimes.venv import VenvRuntime
from worker.protocol import Shard

LOG = pathlib.Path("x.log")
SHARD = Shard("s", 1, "torch-cuda", [], [], device="cuda")


class TwoWays(VenvRuntime):
    """As Docker: device requests, then CDI."""

    def __init__(self):
        super().__init__()
        self.cdi = False

    @property
    def way(self):
        return "CDI" if self.cdi else "device requests"

    def another_way(self):
        again, self.cdi = not self.cdi, True
        return again


def make(*uuids, strict=False):
    grant = Grant(tuple(Gpu(n, uuid, "GPU", 1) for n, uuid in enumerate(uuids)), "asked for", strict)
    placement = Placement(VenvRuntime(), "asked for", grant, frozenset({"torch-cuda"}))
    return Gpus(placement), placement


def attempt(gpus, way="venv", device=None, broken=None):
    made = Attempt(SHARD, gpus, way)
    made.device, made.broken = device, broken
    return made


def ended(problem=None):
    return Ended(125 if problem else 71, False, False, LOG, problem=problem)


def test_each_gpu_is_taken_once_and_can_be_given_back():
    gpus, _ = make("a", "b")
    assert (gpus.count, gpus.free, gpus.take(), gpus.take(), gpus.free) == (2, True, ("a",), ("b",), False)
    gpus.give_back(("a",))
    assert gpus.take() == ("a",)
    gpus.give_back(())
    assert not gpus.free


@pytest.mark.parametrize(
    ("made", "end", "why"),
    [
        (attempt(()), ended(), None),
        (attempt((), device="sees none"), ended(), None),
        (attempt(("a",)), ended(), None),
        (attempt(("a",), device="sees none"), ended(), "sees none"),
        (attempt(("a",)), ended("nvidia-container-cli: no driver"), "nvidia-container-cli: no driver"),
        (attempt(("a",)), ended("Cannot connect to the Docker daemon"), None),
    ],
)
def test_what_is_a_fault_of_the_gpu(made, end, why):
    assert make("a")[0].fault(made, end) == why


def test_one_that_breaks_in_the_middle_of_the_work_gets_a_second_chance():
    gpus, _ = make("a", "b")
    assert gpus.fault(attempt(("a",), broken="CUDA error"), ended()) is None
    assert gpus.fault(attempt(("b",), broken="CUDA error"), ended()) is None
    assert gpus.fault(attempt(("a",), broken="CUDA error: again"), ended()) == "CUDA error: again"


def test_a_refusal_is_first_asked_again_in_another_way():
    gpus, placement = make("a")
    runtime = TwoWays()
    (first,) = [gpus.take()]
    gpus.give_back(first)
    assert gpus.lose(attempt(first, runtime.way), "no driver", True, runtime) == Decision()
    assert runtime.way == "CDI" and placement.grant.gpus
    # one that was launched before the way changed says nothing of the new one
    assert gpus.lose(attempt(("a",), "device requests"), "no driver", True, runtime) == Decision()
    decision = gpus.lose(attempt(("a",), "CDI"), "no CDI device", True, runtime)
    assert (decision.gone, decision.drop) == (True, False) and decision.text.startswith(
        "NO GPU: no driver; goes on with the CPU (install "
    )
    assert placement.lost == "GPU a: no driver", "the first word is the one about the usual way"


def test_others_go_on_where_one_is_left_out():
    gpus, placement = make("a", "b", strict=True)
    assert gpus.lose(attempt(("a",)), "sees none", False, VenvRuntime()) == Decision("GPU a is left out: sees none")
    assert gpus.count == 1 and gpus.take() == ("b",) and placement.lost is None
    assert placement.device("torch-cuda") == "cuda"


def test_a_job_that_insists_drops_its_models_with_the_way_to_mend_it():
    gpus, placement = make("a", strict=True)
    decision = gpus.lose(attempt(("a",)), "sees none", False, VenvRuntime())
    assert decision.gone and decision.drop and decision.text.startswith("GPU a: sees none; install NVIDIA's driver")
    assert placement.device("torch-cuda") == "cpu" and not gpus.free


def test_auto_goes_on_with_the_cpu_and_every_record_will_say_so():
    gpus, placement = make("a")
    decision = gpus.lose(attempt(("a",)), "sees none", False, VenvRuntime())
    assert (decision.gone, decision.drop) == (True, False)
    assert placement.flags("torch-cuda") == ["cpu_fallback"] and placement.flags("tf-cuda") == []
    assert placement.devices == "cpu (GPU a: sees none)"


def test_all_can_be_given_up_at_once():
    gpus, placement = make("a", "b")
    assert gpus.lose_all("no wheels") == Decision("NO GPU: no wheels; goes on with the CPU", gone=True)
    assert gpus.count == 0 and placement.lost == "no wheels"
