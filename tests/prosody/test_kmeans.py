"""k-means, silhouette and principal components beside scikit-learn's, and with the bytes that they always had."""

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit import kmeans  # noqa: E402
from prosody_toolkit.vectors import Points, Space, fit_pca  # noqa: E402
from sklearn import cluster, decomposition, metrics  # noqa: E402

CLUSTERS = 24


@pytest.fixture(scope="module")
def vectors():
    """Return `[20000, 6]` of three uniform numbers and their products with three more: no blobs, unequal variances."""
    found = np.random.default_rng(7).random((20000, 6)).astype(np.float32)
    found[:, 3:] *= found[:, :3]
    return found


@pytest.fixture(scope="module")
def points(vectors):
    return Points([vectors[:7000], vectors[7000:]], Space(torch.ones(6)), "cpu")


@pytest.fixture(scope="module")
def seeds(points):
    return kmeans.seed(points, CLUSTERS, np.random.default_rng(3))


@pytest.fixture(scope="module")
def fit(points, seeds):
    return kmeans.refine(points, seeds, 200)


def sha256(tensor):
    return hashlib.sha256(np.ascontiguousarray(tensor.numpy()).tobytes()).hexdigest()[:16]


def test_equal_seeds_give_the_bytes_of_every_version_before(points, seeds, fit, vectors):
    assert (sha256(seeds), sha256(fit.centres), fit.iterations) == ("87bc16a34b7b4e07", "ac674f54bde4adeb", 91)
    space, held = fit_pca([vectors[:7000], vectors[7000:]], torch.ones(6), 3)
    assert (sha256(space.components), sha256(space.mean)) == ("c93b75e9ec2ad1ec", "e7e1d3fa23e9ad89")
    drawn = points.sample(1500, np.random.default_rng(0))
    silhouette = kmeans.silhouette(drawn, kmeans.assign(drawn, fit.centres)[0])
    assert (held, silhouette) == pytest.approx((0.8427902580029756, 0.16331367445219658), abs=1e-12)


def test_lloyd_ends_where_that_of_scikit_learn_ends(points, seeds, fit, vectors):
    theirs = cluster.KMeans(CLUSTERS, init=seeds.numpy(), n_init=1, max_iter=200, tol=kmeans.TOLERANCE).fit(vectors)
    assert fit.converged and abs(fit.iterations - theirs.n_iter_) <= 2  # both round, each in its own way
    np.testing.assert_allclose(fit.centres.numpy(), theirs.cluster_centers_, atol=1e-4)
    found = kmeans.measure(points, fit.centres)
    assert found["inertia"] == pytest.approx(theirs.inertia_, rel=1e-4)
    assert np.mean(kmeans.assign(torch.from_numpy(vectors), fit.centres)[0].numpy() == theirs.labels_) > 0.999


def test_seeds_are_as_good_as_those_of_scikit_learn(points, vectors):
    ours = [kmeans.seed(points, CLUSTERS, np.random.default_rng(n)) for n in range(5)]
    theirs = [cluster.kmeans_plusplus(vectors, CLUSTERS, random_state=n)[0] for n in range(5)]
    inertia = [
        np.mean([kmeans.measure(points, torch.as_tensor(one))["inertia"] for one in each]) for each in (ours, theirs)
    ]
    assert inertia[0] == pytest.approx(inertia[1], rel=0.05)


def test_silhouettes_are_those_of_scikit_learn(points, fit):
    drawn = points.sample(1500, np.random.default_rng(0))
    labels = kmeans.assign(drawn, fit.centres)[0]
    labels[0] = CLUSTERS  # alone
    expected = metrics.silhouette_score(drawn.double().numpy(), labels.numpy())
    assert kmeans.silhouette(drawn, labels) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_components_are_those_of_scikit_learn_but_for_their_signs(vectors, count):
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 0.1])
    space, held = fit_pca([vectors[:1], vectors[1:]], weights, count)
    theirs = decomposition.PCA(count, svd_solver="full").fit(vectors.astype(np.float64) * weights.numpy())
    signs = np.sign((space.components.numpy() * theirs.components_).sum(1))[:, None]
    np.testing.assert_allclose(space.components.numpy(), signs * theirs.components_, atol=1e-6)
    np.testing.assert_allclose(space.mean.numpy(), theirs.mean_, atol=1e-6)
    assert held == pytest.approx(theirs.explained_variance_ratio_.sum(), abs=1e-9)
    largest = space.components.abs().argmax(1, keepdim=True)
    assert (space.components.gather(1, largest) > 0).all()
