"""Fitting as a library: the order of the data, the state of a training, the scores."""

import threading

import fits
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit import batches, fitting_encoder, learning, scoring  # noqa: E402
from prosody_toolkit.encoder import ProsodicSequenceEncoder  # noqa: E402
from prosody_toolkit.fitting_encoder import Options  # noqa: E402
from prosody_toolkit.learning import Learning, Stopped, TrainingPlan  # noqa: E402


def test_as_a_library_the_callers_random_numbers_are_left_alone(tmp_path):
    sequences = [np.arange(20) % fits.TOKENS, np.arange(1, 25) % fits.TOKENS, np.arange(2, 30) % fits.TOKENS]
    options = Options(**fits.TINY, plan=TrainingPlan(epochs=2, batch_tokens=64))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    lines = []
    facts = fitting_encoder.fit(
        sequences, str(tmp_path), fits.TOKENS, options, say=lambda text, share: lines.append(text)
    )
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)
    assert facts["epochs"] == 2 and lines


def test_stopping_keeps_the_state_and_the_best_weights_are_kept(tmp_path):
    sequences = [np.random.default_rng(n).integers(0, fits.TOKENS, 30) for n in range(6)]
    model = ProsodicSequenceEncoder(fits.TOKENS + 2, 16, 1, 2)
    stop = threading.Event()
    learned = Learning(
        model, sequences[:4], sequences[4:], str(tmp_path), "x", TrainingPlan(epochs=500, batch_tokens=64)
    )
    with pytest.raises(Stopped):
        learned.run(stop, lambda step, share, loss: stop.set() if step == 3 else None)
    assert learning.read_state(str(tmp_path / learning.STATE), "x")["state"]["step"] == 3
    assert learning.read_state(str(tmp_path / learning.STATE), "y") is None
    whole = Learning(model, sequences[:4], sequences[4:], str(tmp_path), "z", TrainingPlan(epochs=8, batch_tokens=64))
    curve = whole.run()
    assert whole.score["loss"] == min(row["validation_loss"] for row in curve)
    assert scoring.evaluate(model, sequences[4:], 64, 0) == whole.score


def test_an_epoch_holds_every_window_once_in_an_order_of_its_own():
    random = np.random.default_rng(0)
    windows = [np.zeros(n, np.int64) for n in random.integers(2, 40, 100)]
    orders = [batches.order(windows, 200, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert sorted(n for batch in order for n in batch) == list(range(100))
        assert all(len(b) * max(len(windows[n]) for n in b) <= 200 for b in order)
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert orders[0] == batches.order(windows, 200, 0, 0)


def test_windows_cover_a_sequence_and_items_are_not_shared_with_validation():
    whole = np.arange(1, 1004)
    parts = batches.cut([whole, np.array([5]), np.arange(7)], 100)
    np.testing.assert_array_equal(np.concatenate(parts[:-1]), whole)
    assert max(map(len, parts)) <= 100 and len(parts[-1]) == 7
    learned, held = batches.split(50, 0.1, 0)
    assert len(held) == 5 and sorted(learned + held) == list(range(50))
    assert batches.split(2, 0.001, 0)[1] and batches.split(2, 0.999, 0)[0]


def test_the_nearest_visible_token_and_frequencies_are_counted_right():
    tokens = torch.tensor([[4, 5, 6, 7, 8, -100], [1, 2, 3, 4, 5, 6]])
    gaps = torch.tensor([[0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    valid = tokens != -100
    copied = scoring.copy_nearest(tokens, gaps, valid)
    assert copied[0, :5].tolist() == [4, 4, 4, 8, 8]
    assert (copied[1] == -1).all()
    found = scoring.unigram([np.array([0, 0, 0, 1])], [np.array([0, 1, 2])], 3)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["loss"] == pytest.approx(-np.log([4 / 7, 2 / 7, 1 / 7]).mean())
