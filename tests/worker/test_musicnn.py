"""What MusiCNN declares, where its patches lie, and what it does around the network."""

import sys
import types

import numpy as np
import pytest

from worker.extractor import Batch
from worker.extractors.musicnn import Musicnn
from worker.work import windows

PATCH = 187 * 256  # samples from one patch to the next
SHORTEST = 186 * 256  # samples of the shortest audio that fills a patch


def count_upstream_patches(samples, hop_frames):
    frames = 1 + samples // 256
    return len(range(0, frames - 187 + 1, hop_frames))


def stand_in(patches):
    """A network whose features are the mean of the patch; [B, 187, 96] -> [B, D]."""
    mean = patches.mean(axis=(1, 2))[:, None]
    sizes = {"embedding": 753, "taggram": 50, "max_pool": 753, "penultimate": 200}
    # As a ReLU does with what is not a number.
    return {name: np.nan_to_num(np.tile(mean, (1, size)), posinf=0.0) for name, size in sizes.items()}


def make_batch(wave):
    count, length = wave.shape
    return Batch(wave[:, None].astype(np.float32), np.full(count, length), np.full(count, -256))


@pytest.fixture
def loaded(monkeypatch):
    """Load `Musicnn` with a module in the place of the networks; returns what that module was asked."""
    asked = {}

    def load(extractor, files, holds_vgg=False):
        module = types.ModuleType("legacy_models.musicnn")
        module.read_checkpoint = lambda prefix: asked.update(prefix=prefix)
        module.read_h5 = lambda path: asked.update(path=path)
        module.is_vgg = lambda weights: holds_vgg
        module.build = lambda weights, batch_size: asked.update(batch_size=batch_size) or stand_in
        package = types.ModuleType("legacy_models")
        package.musicnn = module
        monkeypatch.setitem(sys.modules, "legacy_models", package)
        monkeypatch.setitem(sys.modules, "legacy_models.musicnn", module)
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        extractor.load("cpu", files)
        return asked

    return load


def locate(extractor, folder="weights"):
    return {checkpoint.file: folder + "/" + checkpoint.file for checkpoint in extractor.checkpoints()}


@pytest.mark.parametrize(("hop_seconds", "hop_frames"), [(None, 187), (3.0, 186), (1.0, 61), (0.032, 1), (10.0, 624)])
@pytest.mark.parametrize(
    "samples", [SHORTEST, SHORTEST + 1, SHORTEST + PATCH - 1, SHORTEST + PATCH, 222561, 320000, 733519]
)
def test_number_of_patches_is_upstreams(samples, hop_seconds, hop_frames):
    framing = Musicnn(hop_seconds=hop_seconds).framing()
    cut = windows.cut(np.zeros((1, samples), np.float32), framing)
    assert cut.frames == [1] * count_upstream_patches(samples, hop_frames)
    assert not cut.padded


@pytest.mark.parametrize("samples", [1, 1000, 43200, SHORTEST - 1])
def test_short_audio_is_repeated_to_one_patch(samples):
    wave = np.random.RandomState(samples).standard_normal((1, samples)).astype(np.float32)
    cut = windows.cut(wave, Musicnn().framing())
    assert cut.padded
    assert cut.frames == [1]
    batch, _ = next(windows.batches(cut, 1))
    repeated = np.tile(wave[0], 1 + SHORTEST // samples)[:SHORTEST]
    np.testing.assert_array_equal(batch.wave[0, 0], np.pad(repeated, 256, mode="reflect"))


@pytest.mark.parametrize(("checkpoint", "size"), [("MTT_musicnn", 753), ("MSD_musicnn", 753), ("MTT_vgg", 256)])
def test_sizes_follow_the_checkpoint(checkpoint, size):
    outputs = {output.name: output for output in Musicnn(checkpoint=checkpoint).outputs()}
    assert outputs["embedding"].shape == (None, size)
    assert outputs["taggram"].shape == (None, 50)
    assert ("penultimate" in outputs) == ("max_pool" in outputs) == ("vgg" not in checkpoint)
    assert all(output.poolable and output.axes == ("time", "feature") for output in outputs.values())


def test_times_are_centres_of_patches():
    first = Musicnn(hop_seconds=1.0).outputs()[0]
    assert first.start == pytest.approx(1.488)  # half of 186 hops of 16 ms
    assert 1 / first.frame_rate == pytest.approx(61 * 0.016)


@pytest.mark.parametrize("hop_seconds", [0.0, 0.0319, -1.0, float("nan"), float("inf")])
def test_impossible_hops_are_refused(hop_seconds):
    with pytest.raises(ValueError, match=r"hop_seconds: .* at least 0\.032"):
        Musicnn(hop_seconds=hop_seconds)


@pytest.mark.parametrize("checkpoint", ["MTT_musicn", "MSD_musicnn_big", ""])
def test_unknown_checkpoints_are_refused(checkpoint):
    with pytest.raises(ValueError, match=r"not one of MTT_musicnn, .* path of their \.h5 file"):
        Musicnn(checkpoint=checkpoint)


def test_a_checkpoint_is_two_files_of_a_pinned_wheel():
    index, data = Musicnn(checkpoint="MSD_vgg").checkpoints()
    assert (index.file, data.file) == ("musicnn/MSD_vgg/.index", "musicnn/MSD_vgg/.data-00000-of-00001")
    assert {len(index.sha256), len(data.sha256), len(index.archive_sha256)} == {64}


def test_own_file_is_declared_without_opening_it():
    extractor = Musicnn(checkpoint="models/MSD_musicnn_big.h5")
    (checkpoint,) = extractor.checkpoints()
    assert (checkpoint.kind, checkpoint.name, checkpoint.sha256) == ("file", "models/MSD_musicnn_big.h5", "")
    assert {output.shape for output in extractor.outputs()} == {(None, None)}


def test_load_finds_the_prefix_of_both_files(loaded):
    extractor = Musicnn()
    asked = loaded(extractor, locate(extractor))
    assert asked == {"prefix": "weights/musicnn/MTT_musicnn/", "batch_size": 1}


def test_load_refuses_files_of_two_folders(loaded):
    extractor = Musicnn()
    files = dict(locate(extractor), **{"musicnn/MTT_musicnn/.index": "elsewhere/.index"})
    with pytest.raises(ValueError, match="must lie in one folder"):
        loaded(extractor, files)


@pytest.mark.parametrize(("name", "holds_vgg"), [("mine.h5", True), ("my_VGG.h5", False)])
def test_load_refuses_the_other_network(loaded, name, holds_vgg):
    extractor = Musicnn(checkpoint=name)
    with pytest.raises(ValueError, match=name + ": a VGG's file has 'vgg' in its name"):
        loaded(extractor, {name: name}, holds_vgg)


@pytest.mark.parametrize("wanted", [["taggram"], ["embedding", "penultimate"], []])
def test_extract_returns_what_is_wanted(loaded, wanted):
    extractor = Musicnn().asked(outputs=frozenset(wanted))
    loaded(extractor, locate(extractor))
    declared = {output.name: output for output in extractor.outputs()}
    arrays = extractor.extract(make_batch(np.zeros((1, 48128))))
    assert set(arrays) == set(wanted or declared)
    for name, array in arrays.items():
        assert array.shape == (1, 1, declared[name].shape[1])
        assert array.dtype == np.float32


def test_patches_reach_the_network_one_by_one_whatever_the_batch(loaded, monkeypatch):
    extractor = Musicnn()
    loaded(extractor, locate(extractor))
    shapes = []
    monkeypatch.setattr(extractor, "_network", lambda patches: shapes.append(patches.shape) or stand_in(patches))
    embedding = extractor.extract(make_batch(np.random.RandomState(0).standard_normal((3, 48128))))["embedding"]
    assert embedding.shape == (3, 1, 753)
    assert shapes == [(1, 187, 96)] * 3


def test_audio_too_loud_for_float16_is_not_finite(loaded):
    extractor = Musicnn()
    loaded(extractor, locate(extractor))
    wave = np.random.RandomState(0).standard_normal((2, 48128))
    wave[1] *= 1e4
    embedding = extractor.extract(make_batch(wave))["embedding"]
    assert np.isfinite(embedding[0]).all()
    assert np.isnan(embedding[1]).all()
