"""What the toolkit says twice must be equal, and what is said once for all of PyTorch must be heard."""

import dataclasses
import pathlib
import re

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

import prosody_toolkit  # noqa: E402
from prosody_toolkit import features  # noqa: E402
from prosody_toolkit.clustering import ClusteringPipeline  # noqa: E402
from prosody_toolkit.embedding import Describer  # noqa: E402

from worker.extractors.prosody import Prosody  # noqa: E402

IMAGE = pathlib.Path(prosody_toolkit.__file__).parents[1]


def test_the_declaration_and_the_toolkit_say_the_same():
    declared = dataclasses.asdict(Prosody())
    lengths, others = [declared.pop(name) for name in ("frame_ms", "hop_ms")], dataclasses.asdict(features.Settings())
    del others["frame_length"], others["hop_length"]
    assert others == {name: declared[name] for name in others}
    assert (Prosody.version, Prosody.sample_rate) == (features.VERSION, features.SAMPLE_RATE)
    assert features.Settings.of_ms(*lengths) == features.Settings()


def test_published_classes_are_the_same_at_both_places():
    from torch_models import prosody

    assert len(prosody_toolkit.__all__) == 5
    for name in prosody_toolkit.__all__:
        assert getattr(prosody, name) is getattr(prosody_toolkit, name)


@pytest.mark.parametrize(
    "make", [lambda: ClusteringPipeline(device="cpu"), lambda: Describer(features.Settings(), (), None)]
)
def test_models_compute_in_full_float32_whatever_was_switched_on_before(make):
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    for switch in switches:
        switch.allow_tf32 = True
    make()
    assert not any(switch.allow_tf32 for switch in switches)
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_precision_of_pytorch_is_set_in_one_place():
    texts = {path.relative_to(IMAGE).as_posix(): path.read_text("utf-8") for path in IMAGE.rglob("*.py")}
    setting = re.compile(r"allow_tf32|matmul_precision|fp32_precision")
    assert [name for name, text in texts.items() if setting.search(text)] == ["torch_models/devices.py"]
    callers = {name for name, text in texts.items() if "devices.switch_off_tf32()" in text}
    networks = {"mert.py", "encodec/codec.py", "encodecmae/network.py"}
    assert callers == {f"torch_models/{name}" for name in networks} | {"prosody_toolkit/devices.py"}
