"""The token model: k-means against known blobs, its files, and what it refuses."""

import inspect
import json
import pickle
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit import cluster_files, features, kmeans  # noqa: E402
from prosody_toolkit.clustering import ClusteringPipeline  # noqa: E402
from prosody_toolkit.vectors import ArrayClass, Points, Space  # noqa: E402


def blobs(clusters=12, each=200, seed=0, spread=0.01):
    """Return vectors `[N, 6]` in 0 .. 1 around well separated middles `[K, 6]`, and the middles."""
    random = np.random.default_rng(seed)
    middles = random.permutation(np.stack(np.meshgrid(*[[0.2, 0.8]] * 6), -1).reshape(-1, 6))[:clusters]
    vectors = np.repeat(middles, each, axis=0) + spread * random.standard_normal((clusters * each, 6))
    return random.permutation(vectors).astype(np.float32).clip(0, 1), middles


def pipeline(clusters=12, **options):
    return ClusteringPipeline(n_clusters=clusters, device="cpu", **options)


def test_known_clusters_are_found(tmp_path):
    vectors, middles = blobs()
    made = pipeline()
    said = made.train(vectors, tmp_path)
    distance = np.linalg.norm(made.model.centres.numpy()[:, None] - middles[None], axis=-1)
    assert sorted(distance.argmin(1)) == list(range(12)) and distance.min(1).max() < 0.005
    assert said["used"] == 12 and said["usage"] == 1.0
    assert said["perplexity"] == pytest.approx(12) and said["silhouette"] > 0.9 and said["explained"] > 0.99
    assert made.model.facts["converged"]


def test_inertia_is_the_sum_of_squared_distances_to_the_nearest_centre(tmp_path):
    vectors = np.random.default_rng(1).random((3000, 6), np.float32)
    made = pipeline(20)
    said = made.train(vectors, tmp_path)
    distances = np.linalg.norm(vectors[:, None].astype(np.float64) - made.model.centres.numpy()[None], axis=-1)
    tokens, found = made.predict(vectors)
    np.testing.assert_array_equal(tokens, distances.argmin(1))
    np.testing.assert_allclose(found, distances.min(1), atol=1e-3)
    assert said["inertia"] == pytest.approx((distances.min(1) ** 2).sum(), rel=1e-4)
    total = ((vectors - vectors.mean(0)) ** 2).sum()
    assert said["explained"] == pytest.approx(1 - said["inertia"] / total, rel=1e-4)


def test_lloyd_ends_where_each_centre_is_the_mean_of_its_points(tmp_path):
    vectors = np.random.default_rng(2).random((5000, 6), np.float32)
    made = pipeline(8)
    made.train(vectors, tmp_path)
    tokens, _ = made.predict(vectors)
    for number, centre in enumerate(made.model.centres.numpy()):
        np.testing.assert_allclose(vectors[tokens == number].mean(0), centre, atol=0.02)


def test_equal_seeds_give_equal_bytes_and_the_blocks_do_not_matter(tmp_path):
    vectors = np.random.default_rng(3).random((4000, 6), np.float32)
    collection = ArrayClass(6, init_capacity=4096)
    for start in range(0, 4000, 37):
        collection.add_batch(vectors[start : start + 37])
    pipeline().train(vectors, tmp_path / "a")
    pipeline().train(collection.finalize(), tmp_path / "b")
    pipeline(seed=1).train(vectors, tmp_path / "c")
    names = (cluster_files.DESCRIPTION, cluster_files.CENTRES)
    files = {folder: [(tmp_path / folder / name).read_bytes() for name in names] for folder in "abc"}
    assert files["a"] == files["b"] and files["a"][1] != files["c"][1]


def test_random_numbers_of_the_caller_are_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pipeline().train(blobs()[0], tmp_path)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_centre_without_points_moves_to_where_they_are_far():
    vectors, middles = blobs(4)
    points = Points([vectors], Space(torch.ones(6)), "cpu")
    start = torch.cat([torch.from_numpy(middles[:2]).float(), torch.full((2, 6), 9.0)])  # two are out of reach
    fit = kmeans.refine(points, start, 100)
    assert fit.converged
    distance = np.linalg.norm(fit.centres.numpy()[:, None] - middles[None], axis=-1)
    assert sorted(distance.argmin(1)) == [0, 1, 2, 3] and distance.min(1).max() < 0.01


def test_fewer_different_vectors_than_clusters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="only 3 different vectors, too few for 12 clusters"):
        pipeline().train(np.repeat(np.eye(6)[:3], 500, axis=0), tmp_path)


def test_silhouette_is_that_of_its_definition():
    random = np.random.default_rng(4)
    vectors = random.random((120, 3))
    labels = random.integers(0, 5, 120)
    labels[labels == 4] = 3
    labels[0] = 4  # alone
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    expected = []
    for i, own in enumerate(labels):
        others = [j for j in range(120) if labels[j] == own and j != i]
        a = distances[i, others].mean() if others else 0.0
        b = min(distances[i, labels == other].mean() for other in range(5) if other != own)
        expected.append((b - a) / max(a, b) if others else 0.0)
    found = kmeans.silhouette(torch.from_numpy(vectors), torch.from_numpy(labels))
    assert found == pytest.approx(np.mean(expected), abs=1e-9)
    assert kmeans.silhouette(torch.from_numpy(vectors), torch.zeros(120, dtype=torch.int64)) == 0.0


def test_perplexity_counts_equally_frequent_tokens():
    assert kmeans.perplexity(np.array([5, 5, 5, 0])) == pytest.approx(3)
    assert kmeans.perplexity(np.array([7, 0])) == pytest.approx(1)


def test_a_loaded_model_is_the_same_and_says_what_it_is(tmp_path):
    vectors, _ = blobs()
    made = pipeline(seed=3, feature_weights=[1.5, 1, 1, 1, 2, 1])
    said = made.train(vectors, tmp_path)
    loaded = ClusteringPipeline(device="cpu").load_model(tmp_path)
    assert loaded.n_clusters == 12
    np.testing.assert_array_equal(loaded.predict(vectors)[0], made.predict(vectors)[0])
    assert loaded.clustering_quality_analysis(vectors)["inertia"] == pytest.approx(said["inertia"])
    text = json.loads((tmp_path / "kmeans_model.json").read_text())
    assert text["features"]["names"] == ["f0", "f0_width", "f1", "f2", "power", "snr"]
    assert text["features"]["ranges"] == [list(pair) for pair in features.RANGES]
    assert text["features"]["normalized"] is True and text["features"]["version"] >= 1
    assert (text["n_clusters"], text["seed"], text["feature_weights"]) == (12, 3, [1.5, 1, 1, 1, 2, 1])
    assert text["quality"] == said and "cluster_centers" not in text
    tensors = torch.load(tmp_path / "cluster_centers.pt", weights_only=True)
    assert list(tensors) == ["centers"] and tensors["centers"].shape == (12, 6)


def test_weights_stretch_the_distances(tmp_path):
    """Two features alike in spread: the one that weighs more decides between two clusters."""
    random = np.random.default_rng(6)
    vectors = np.zeros((400, 6), np.float32)
    vectors[:, :2] = random.integers(0, 2, (400, 2))
    for weights, decisive in (([5, 1, 1, 1, 1, 1], 0), ([1, 5, 1, 1, 1, 1], 1)):
        made = pipeline(2, feature_weights=weights)
        made.train(vectors, tmp_path)
        tokens = made.predict(vectors)[0]
        assert len(set(zip(tokens, vectors[:, decisive], strict=True))) == 2


def test_pca_keeps_the_directions_of_largest_variance_as_arrays(tmp_path):
    vectors, _ = blobs()
    vectors[:, 4:] = 0.5
    made = pipeline()
    made.train(vectors, tmp_path, reduced_dims=4)
    tensors = torch.load(tmp_path / "cluster_centers.pt", weights_only=True)
    assert tensors["centers"].shape == (12, 4) and tensors["pca_components"].shape == (4, 6)
    np.testing.assert_allclose(tensors["pca_components"] @ tensors["pca_components"].T, np.eye(4), atol=1e-5)
    assert json.loads((tmp_path / "kmeans_model.json").read_text())["pca_variance"] == pytest.approx(1.0)
    loaded = ClusteringPipeline(device="cpu").load_model(tmp_path)
    np.testing.assert_array_equal(loaded.predict(vectors)[0], made.predict(vectors)[0])
    assert list(tmp_path.glob("*.pkl")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduced_dims": 50}, r"reduced_dims=50: .* 6 numbers has 1 to 6 components"),
        ({"reduced_dims": 0}, "reduced_dims=0"),
        ({"reduced_dims": 3, "dim_reducer_method": "umap"}, "umap.*pickled"),
        ({"dim_reducer_method": "tsne"}, "'tsne' is not pca"),
    ],
)
def test_reductions_that_cannot_be_are_refused_with_the_reason(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        pipeline().train(blobs()[0], tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_published_layout_is_read_and_says_nothing_of_its_features(tmp_path):
    centres = np.random.default_rng(7).random((5, 6)).round(3)
    (tmp_path / "kmeans_model.json").write_text(json.dumps({"cluster_centers": centres.tolist(), "n_clusters": 5}))
    loaded = ClusteringPipeline(device="cpu").load_model(tmp_path)
    assert loaded.model.features is None
    np.testing.assert_array_equal(loaded.predict(centres)[0], np.arange(5))
    with pytest.raises(ValueError, match="does not say which features it was fitted to"):
        features.refuse_others(loaded.model.features, features.define(), "model")


def test_vectors_that_are_no_normalised_features_are_not_taken_for_them(tmp_path):
    with pytest.warns(UserWarning, match=r"outside 0 \.\. 1"):
        pipeline(2).train(np.random.default_rng(8).random((100, 6)) * 300, tmp_path)
    assert cluster_files.load(str(tmp_path)).features is None
    plain = features.define(features.Settings(output_normalize=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline(2, features=plain).train(np.random.default_rng(8).random((100, 6)) * 300, tmp_path)
    assert cluster_files.load(str(tmp_path)).features == plain


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hop_length": 160}, "hop_length 256, here it is 160"),
        ({"smoothing_level": "heavy"}, "smoothing_level light, here it is heavy"),
        ({"output_normalize": False}, "normalized True, here it is False"),
    ],
)
def test_features_of_another_definition_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        features.refuse_others(features.define(), features.define(features.Settings(**settings)), "model")


def damage_json(folder):
    (folder / "kmeans_model.json").write_text("{")


def damage_tensors(folder):
    data = bytearray((folder / "cluster_centers.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "cluster_centers.pt").write_bytes(bytes(data))


def exchange_tensors(folder):
    pipeline(seed=9).train(np.random.default_rng(9).random((500, 6)), folder / "other")
    (folder / "other" / "cluster_centers.pt").rename(folder / "cluster_centers.pt")


def drop_tensors(folder):
    (folder / "cluster_centers.pt").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_json, "kmeans_model.json: not valid JSON"),
        (damage_tensors, "not of the same fit"),
        (exchange_tensors, "not of the same fit"),
        (drop_tensors, "is missing beside"),
    ],
)
def test_damaged_models_are_refused_in_one_line(tmp_path, damage, words):
    pipeline().train(blobs()[0], tmp_path)
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        cluster_files.load(str(tmp_path))


def test_a_pickle_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    pipeline().train(blobs()[0], tmp_path)
    text = json.loads((tmp_path / "kmeans_model.json").read_text())
    for data in (pickle.dumps(Trap(), 2), b""):
        (tmp_path / "cluster_centers.pt").write_bytes(data)
        text["centers_sha256"] = cluster_files.storage.sha256_of(str(tmp_path / "cluster_centers.pt"))
        (tmp_path / "kmeans_model.json").write_text(json.dumps(text))
        with pytest.raises(ValueError, match="not a file of tensors"):
            cluster_files.load(str(tmp_path))
    assert not (tmp_path / "sprung").exists()


def test_only_a_device_that_nobody_asked_for_is_replaced():
    assert inspect.signature(ClusteringPipeline).parameters["device"].default == "cuda"
    if torch.cuda.is_available():
        assert ClusteringPipeline().device == "cuda"
        return
    with pytest.warns(UserWarning, match="no CUDA device is here, so the CPU is used"):
        assert ClusteringPipeline().device == "cpu"
    with pytest.raises(ValueError, match="'cuda' is not available here"):
        ClusteringPipeline(device="cuda")


@pytest.mark.parametrize("count", [64, 256])
def test_other_vocabularies(tmp_path, count):
    vectors = np.random.default_rng(10).random((3000, 6), np.float32)
    assert pipeline(count).train(vectors, tmp_path)["used"] == count


def test_a_model_must_be_there():
    with pytest.raises(RuntimeError, match="call train or load_model"):
        pipeline().predict(np.zeros((1, 6)))
    with pytest.raises(FileNotFoundError, match="fit a token model"):
        pipeline().load_model("nowhere")
