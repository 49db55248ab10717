"""What becomes of a run whose GPUs are of no use: every way from a fault to a decision."""

import dataclasses
import pathlib

import pytest

from orchestrator.environments.devices import Gpu, Grant
from orchestrator.running.attempts import Attempt
from orchestrator.running.engines.base import Ended
from orchestrator.running.gpus import Decision, Gpus
from orchestrator.running.placement import Placement
from orchestrator.running.runtimes.venv import VenvRuntime
from worker.protocol import Event, Shard

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


def make(*uuids, strict=False, environments=("torch-cuda",)):
    grant = Grant(tuple(Gpu(n, uuid, "GPU", 1) for n, uuid in enumerate(uuids)), "asked for", strict)
    placement = Placement(VenvRuntime(), "asked for", grant, frozenset(environments))
    return Gpus(placement), placement


def attempt(gpus, way="venv", device=None, broken=None):
    made = Attempt(SHARD, gpus, way)
    made.device, made.broken = device, broken
    made.note(Event("loading", model="m"))
    made.note(Event("loaded", model="m"))
    return made


def ended(problem=None, code=71, hung=False):
    return Ended(125 if problem else code, False, hung, LOG, problem=problem)


def test_each_gpu_is_taken_once_and_can_be_given_back():
    gpus, _ = make("a", "b")
    taken = (gpus.take(SHARD), gpus.take(SHARD))
    assert (gpus.count, taken, gpus.free, gpus.serves(SHARD)) == (2, (("a",), ("b",)), False, False)
    gpus.give_back(("a",))
    assert gpus.free and gpus.take(SHARD) == ("a",)
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
    first = gpus.take(SHARD)
    gpus.give_back(first)
    assert gpus.lose(attempt(first, runtime.way), "no driver", True, runtime) == Decision()
    assert runtime.way == "CDI" and placement.grant.gpus
    # one that was launched before the way changed says nothing of the new one
    assert gpus.lose(attempt(("a",), "device requests"), "no driver", True, runtime) == Decision()
    decision = gpus.lose(attempt(("a",), "CDI"), "no CDI device", True, runtime)
    assert not decision.drop and decision.text.startswith("torch-cuda: NO GPU: no driver; goes on with the CPU (inst")
    assert placement.devices == "cpu (GPU a: no driver)", "the first word is the one about the usual way"


def test_others_go_on_where_one_is_left_out():
    gpus, placement = make("a", "b", strict=True)
    decision = gpus.lose(attempt(("a",)), "sees none", False, VenvRuntime())
    assert decision == Decision("torch-cuda: GPU a is left out: sees none")
    assert gpus.take(SHARD) == ("b",) and gpus.free and not gpus.serves(SHARD)
    assert placement.device("torch-cuda") == "cuda" and placement.flags("torch-cuda") == []


def test_a_job_that_insists_drops_its_models_with_the_way_to_mend_it():
    gpus, placement = make("a", strict=True)
    decision = gpus.lose(attempt(("a",)), "sees none", False, VenvRuntime())
    assert decision.drop and decision.text.startswith("GPU a: sees none; install NVIDIA's driver")
    assert "torch-cuda needs driver 580 or newer and a GPU of sm_75 to sm_120" in decision.text
    assert placement.device("torch-cuda") == "cpu" and not gpus.serves(SHARD)


def test_auto_goes_on_with_the_cpu_and_every_record_will_say_so():
    gpus, placement = make("a")
    assert not gpus.lose(attempt(("a",)), "sees none", False, VenvRuntime()).drop
    assert placement.flags("torch-cuda") == ["cpu_fallback"] and placement.flags("tf-cuda") == []
    assert placement.devices == "cpu (GPU a: sees none)"


def test_all_can_be_given_up_at_once():
    gpus, placement = make("a", "b")
    expected = Decision("torch-cuda: NO GPU: no wheels; goes on with the CPU")
    assert gpus.lose_all("torch-cuda", "no wheels") == expected
    assert not gpus.serves(SHARD) and placement.devices == "cpu (no wheels)"


def test_a_gpu_may_be_of_use_to_one_environment_and_of_none_to_another():
    gpus, placement = make("a", environments=("tf-cuda", "torch-cuda"))
    other = dataclasses.replace(SHARD, environment="tf-cuda")
    lost = Attempt(other, ("a",))
    lost.note(Event("device_missing", message="no DNN"))
    why = gpus.fault(lost, ended(code=69))
    assert "goes on with the CPU" in gpus.lose(lost, why, False, VenvRuntime()).text
    assert (gpus.serves(SHARD), gpus.serves(other)) == (True, False)
    assert placement.devices == "cuda GPU; tf-cuda on the CPU (GPU a: no DNN)"
    assert (placement.flags("torch-cuda"), placement.flags("tf-cuda")) == ([], ["cpu_fallback"])


@pytest.mark.parametrize(
    ("events", "end", "why", "model"),
    [
        ([], ended(code=-11), "the worker ended while it tried it (killed by signal 11)", ""),
        (["loading"], ended(code=-6), "the worker ended while it loaded a model (killed by signal 6)", "m"),
        (["loading", "loaded"], ended(code=-11), None, ""),
        (["loading"], ended(code=137), None, ""),  # for want of memory, which is not the GPU's
        (
            ["loading"],
            ended(hung=True),
            "the worker ended while it loaded a model (no progress within the time limit)",
            "m",
        ),
        (["loading"], ended(code=75), None, ""),  # it was asked to end
        ([], ended("Cannot connect to the Docker daemon"), None, ""),
    ],
)
def test_a_death_while_the_gpu_is_tried_or_a_model_loads_is_first_the_gpus(events, end, why, model):
    made = Attempt(SHARD, ("a",))
    for kind in events:
        made.note(Event(kind, model="m"))
    assert (make("a")[0].fault(made, end), made.unloadable) == (why, model)
