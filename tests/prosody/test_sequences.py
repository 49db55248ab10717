"""From audio to tokens: batches, lengths, distances, and a summary of an utterance."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
pytest.importorskip("soxr", reason="soxr is not installed: run in the torch environment")

from prosody_toolkit import cluster_files, features  # noqa: E402
from prosody_toolkit.clustering import ClusteringPipeline  # noqa: E402
from prosody_toolkit.embedding import summarize, summary_names  # noqa: E402
from prosody_toolkit.sequences import ProsodicClusterSequences  # noqa: E402

RATE = 16000


def glide(seconds, low=110.0, high=220.0):
    """Return a voice-like glide with ten harmonics."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(low + (high - low) * t / max(seconds, 1e-9)) / RATE
    return (0.2 * sum(np.cos(k * phase) / k for k in range(1, 11))).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Fit a token model to two seconds of voice and noise; return its folder."""
    folder = tmp_path_factory.mktemp("clusters")
    noise = 0.05 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    wave = np.concatenate([glide(2.0), noise])
    vectors, _ = features.analyse(wave, features.Settings())
    ClusteringPipeline(n_clusters=10, device="cpu").train(vectors, folder)
    return str(folder)


@pytest.fixture(scope="module")
def extractor(model):
    """Return the extractor of that model."""
    return ProsodicClusterSequences(model)


def test_each_frame_gets_the_nearest_centre_and_its_distance(extractor, model):
    wave = glide(0.7)
    tokens, distances = extractor.extract_cluster_sequences(wave, return_distances=True)
    vectors, _ = features.analyse(wave, features.Settings())
    centres = cluster_files.load(model).centres.numpy()
    expected = np.linalg.norm(vectors[:, None].astype(np.float64) - centres[None], axis=-1)
    assert tokens == [expected.argmin(1).tolist()]
    assert all(type(token) is int for token in tokens[0])
    np.testing.assert_allclose(distances[0], expected.min(1), atol=2e-3)
    assert len(tokens[0]) == 1 + (len(wave) - 1) // 256
    assert extractor.extract_cluster_sequences(wave) == tokens


def test_tokens_depend_on_the_own_samples_alone(extractor):
    waves = [glide(0.4), glide(1.1, 200, 120), glide(0.05)]
    alone = [extractor.extract_cluster_sequences(wave)[0] for wave in waves]
    assert extractor.extract_cluster_sequences(waves) == alone
    batch, lengths = extractor.prepare_audio_batch(waves)
    assert batch.shape == (3, len(waves[1])) and lengths.tolist() == [len(wave) for wave in waves]
    dirty = batch + (torch.arange(batch.shape[1]) >= lengths[:, None]) * 0.5
    assert extractor.extract_cluster_sequences(dirty, lengths) == alone
    assert extractor.extract_cluster_sequences(dirty, lengths.tolist()) == alone
    surveyed, _ = extractor.prepare_audio_batch(dirty, lengths)
    torch.testing.assert_close(surveyed, batch, rtol=0, atol=0)


def test_what_torchaudio_loads_can_be_given_after_resampling(extractor):
    t = np.arange(44100) / 44100
    stereo = torch.from_numpy(np.stack([np.sin(2 * np.pi * 200 * t), np.zeros(44100)]).astype(np.float32))
    mono = extractor.resample_waveform(stereo, 44100)
    assert mono.shape == (1, RATE) and mono.dtype == torch.float32
    expected = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(mono[0, 200:-200], expected[200:-200], atol=1e-3)
    (tokens,) = extractor.extract_cluster_sequences(mono)
    assert len(tokens) == 63
    same = extractor.resample_waveform(glide(0.3), RATE)
    np.testing.assert_array_equal(same[0], glide(0.3))


@pytest.mark.parametrize(
    ("audio", "lengths", "words"),
    [
        (glide(11), None, r"11\.0 s are longer than max_duration=10; raise it, or cut"),
        (np.zeros(0, np.float32), None, "0 samples are asked for"),
        (glide(0.1), [9999], "9999 samples are asked for, 1600 are there"),
        (glide(0.1), [0], "0 samples are asked for"),
        (glide(0.1), [10, 10], "1 waveforms and 2 lengths"),
        (np.full(1600, np.nan, np.float32), None, "holds NaN"),
        (np.zeros((2, 3, 100), np.float32), None, "expected mono audio"),
        ([], None, "0 waveforms"),
    ],
)
def test_audio_that_cannot_be_is_refused(extractor, audio, lengths, words):
    with pytest.raises(ValueError, match=words):
        extractor.extract_cluster_sequences(audio, lengths)


def test_the_limit_of_the_duration_is_the_users(model):
    assert len(ProsodicClusterSequences(model, max_duration=30).extract_cluster_sequences(glide(11))[0]) == 688
    assert len(ProsodicClusterSequences(model, max_duration=None).extract_cluster_sequences(glide(11))[0]) == 688
    with pytest.raises(ValueError, match="max_duration"):
        ProsodicClusterSequences(model, max_duration=0)


def test_features_are_computed_as_the_model_was_fitted(tmp_path):
    settings = features.Settings(hop_length=160, smoothing_level="heavy")
    vectors, _ = features.analyse(glide(1.0), settings)
    ClusteringPipeline(5, device="cpu", features=features.define(settings)).train(vectors, tmp_path)
    tokens = ProsodicClusterSequences(str(tmp_path)).extract_cluster_sequences(glide(1.0))
    assert len(tokens[0]) == 1 + (RATE - 1) // 160


@pytest.mark.parametrize("change", [{"version": 0}, {"ranges": [[0, 1]] * 6}, {"names": list("abcdef")}, None])
def test_models_of_other_features_are_refused(model, tmp_path, change):
    import json
    import pathlib
    import shutil

    shutil.copytree(model, tmp_path / "copy")
    path = pathlib.Path(tmp_path, "copy", "kmeans_model.json")
    text = json.loads(path.read_text())
    text["features"] = None if change is None else {**text["features"], **change}
    path.write_text(json.dumps(text))
    with pytest.raises(
        ValueError, match="does not say which features" if change is None else "fitted to features with"
    ):
        ProsodicClusterSequences(str(tmp_path / "copy"))


def test_a_published_model_without_a_definition_is_refused(tmp_path):
    (tmp_path / "kmeans_model.json").write_text('{"n_clusters": 1, "cluster_centers": [[0, 0, 0, 0, 0, 0]]}')
    with pytest.raises(ValueError, match="does not say which features"):
        ProsodicClusterSequences(str(tmp_path))


def test_a_summary_holds_the_statistics_that_its_names_say():
    random = np.random.default_rng(1)
    found = random.random((50, 6)).astype(np.float32)
    voiced = np.ones(50, np.uint8)
    voiced[20:30] = 0
    tokens = random.integers(0, 7, 50)
    values = dict(zip(summary_names(features.NAMES, 8), summarize(found, voiced, tokens, 8), strict=True))
    assert len(values) == 25 + 8
    kept = found[voiced > 0, 0]
    assert values["f0.mean"] == pytest.approx(kept.mean()) and values["f0.std"] == pytest.approx(kept.std(), rel=1e-5)
    inside = np.concatenate([np.diff(found[:20, 0]), np.diff(found[30:, 0])])  # never across the gap
    assert values["f0.delta_mean"] == pytest.approx(inside.mean(), abs=1e-6)
    assert values["f0.delta_std"] == pytest.approx(inside.std(), rel=1e-5)
    assert values["power.mean"] == pytest.approx(found[:, 4].mean())
    assert values["power.delta_std"] == pytest.approx(np.diff(found[:, 4]).std(), rel=1e-5)
    assert values["voiced_ratio"] == pytest.approx(0.8)
    assert [values[f"token_{n}"] for n in range(8)] == pytest.approx(np.bincount(tokens, minlength=8) / 50)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_summary_of_next_to_nothing_is_finite(frames):
    for voiced in (np.zeros(frames), np.ones(frames)):
        values = summarize(np.ones((frames, 6), np.float32), voiced)
        assert values.shape == (25,) and values.dtype == np.float32 and np.isfinite(values).all()
