"""The sequence encoder: what it returns, what padding may not change, and what it learns from."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit.encoder import ProsodicSequenceEncoder, choose_gaps, hide  # noqa: E402

PAD = -100


@pytest.fixture(scope="module")
def tiny():
    """Return a small network with seeded weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return ProsodicSequenceEncoder(22, 32, 2, 4, pos_max_len=50).eval()


def draw(*lengths, high=20, seed=0):
    """Return random tokens `[B, T]`, padded."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.randint(high, (length,), generator=generator)
    return batch


def test_the_documented_signature_and_sizes():
    model = ProsodicSequenceEncoder(
        vocab_size=122, hidden_dim=768, num_layers=8, nhead=8, pos_max_len=2000, padding_token_id=-100
    )
    assert model.embedding.num_embeddings == 122  # 120 tokens, padding, mask: none is added
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert 52 < millions < 60
    sizes = {name: tuple(size.values()) for name, size in ProsodicSequenceEncoder.sizes.items()}
    assert sizes == {"small": (512, 6, 8), "default": (768, 8, 8), "large": (1024, 12, 16)}
    small = ProsodicSequenceEncoder(**ProsodicSequenceEncoder.sizes["small"])
    assert (small.hidden_dim, len(small.layers.layers), small.layers.layers[0].self_attn.num_heads) == (512, 6, 8)


def test_training_returns_logits_states_gaps_and_the_tokens_before(tiny):
    tokens = draw(30, 12)
    logits, states, gaps, original = tiny(tokens, training=True)
    assert logits.shape == (2, 30, 22) and states.shape == (2, 30, 32)
    assert gaps.dtype == torch.bool and gaps.shape == (2, 30) and not gaps[1, 12:].any() and gaps.any(1).all()
    torch.testing.assert_close(original, tokens, rtol=0, atol=0)


def test_inference_is_the_mean_of_the_states_without_padding(tiny):
    tokens = draw(30, 12)
    with torch.no_grad():
        found = tiny(tokens)
        states = tiny._run(tokens[1:, :12], torch.ones(1, 12, dtype=torch.bool))
    assert found.shape == (2, 32)
    torch.testing.assert_close(found[1], states[0].mean(0), rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing_however_it_is_given(tiny):
    tokens = draw(30, 12, 1)
    with torch.no_grad():
        together = tiny(tokens)
        for row, length in enumerate((30, 12, 1)):
            torch.testing.assert_close(tiny(tokens[row : row + 1, :length])[0], together[row], rtol=1e-4, atol=1e-5)
        wide = torch.cat([tokens, torch.full((3, 40), PAD)], 1)
        torch.testing.assert_close(tiny(wide), together, rtol=1e-4, atol=1e-5)
        other = tokens.masked_fill(tokens == PAD, 7)  # no padding, but lengths
        torch.testing.assert_close(tiny(other, lengths=[30, 12, 1]), together, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tiny(other, torch.tensor([30, 12, 1])), together, rtol=1e-4, atol=1e-5)


def test_order_and_tokens_matter(tiny):
    tokens = draw(30)
    with torch.no_grad():
        assert (tiny(tokens) - tiny(tokens.flip(1))).abs().max() > 1e-3
        assert (tiny(tokens) - tiny((tokens + 1) % 20)).abs().max() > 1e-3


@pytest.mark.parametrize("length", [51, 100, 130])
def test_long_sequences_are_embedded_in_windows_of_their_own_length(tiny, length):
    tokens = draw(length)
    count = -(-length // 50)
    edges = [length * n // count for n in range(count + 1)]
    with torch.no_grad():
        parts = [(stop - start) * tiny(tokens[:, start:stop])[0] for start, stop in itertools.pairwise(edges)]
        expected = sum(parts) / length
        torch.testing.assert_close(tiny(tokens)[0], expected, rtol=1e-4, atol=1e-5)
        beside = torch.cat([torch.cat([tokens, torch.full((1, 200), PAD)], 1), draw(length + 200)])
        torch.testing.assert_close(tiny(beside)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_large_batch_is_run_in_parts(tiny, monkeypatch):
    from prosody_toolkit import encoder

    tokens = draw(*range(1, 41))
    with torch.no_grad():
        expected = tiny(tokens)
        monkeypatch.setattr(encoder, "_TOKENS_AT_ONCE", 60)
        torch.testing.assert_close(tiny(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "options", "words"),
    [
        (draw(51), {"training": True}, "51 tokens exceed pos_max_len=50"),
        (torch.tensor([[3, 20]]), {}, "between 0 and 19, as vocab_size=22"),
        (torch.tensor([[3, -1]]), {}, "between 0 and 19"),
        (torch.tensor([[3, 4], [PAD, PAD]]), {}, "without tokens"),
        (draw(4), {"lengths": [0]}, "without tokens"),
        (draw(4), {"lengths": [5]}, "up to 4"),
        (draw(4), {"lengths": [4, 4]}, "expected 1 numbers"),
        (torch.zeros(1, 3), {}, "whole numbers"),
        (torch.zeros(3, dtype=torch.long), {}, r"\[B, T\]"),
    ],
)
def test_what_has_no_embedding_is_refused(tiny, tokens, options, words):
    with pytest.raises(ValueError, match=words):
        tiny(tokens, **options)


@pytest.mark.parametrize(
    "options",
    [{"vocab_size": 2}, {"hidden_dim": 30}, {"hidden_dim": 31, "nhead": 1}, {"num_layers": 0}, {"padding_token_id": 5}],
)
def test_sizes_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=r"must be at least|is one of the tokens"):
        ProsodicSequenceEncoder(**{"vocab_size": 22, "hidden_dim": 32, "num_layers": 1, "nhead": 4, **options})


@pytest.mark.parametrize("prob", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("span", [1, 8])
def test_gaps_cover_the_share_that_was_asked_for(prob, span):
    generator = torch.Generator().manual_seed(1)
    valid = torch.ones(200, 300, dtype=torch.bool)
    gaps = choose_gaps(valid, prob, span, generator)
    assert gaps.float().mean() == pytest.approx(prob, rel=0.15)  # a row without a gap gets one
    begins = gaps & ~torch.cat([torch.zeros(200, 1, dtype=torch.bool), gaps[:, :-1]], 1)
    ends = gaps & ~torch.cat([gaps[:, 1:], torch.zeros(200, 1, dtype=torch.bool)], 1)
    inner = torch.nonzero(ends)[:, 1] - torch.nonzero(begins)[:, 1] + 1
    whole = torch.nonzero(ends)[:, 1] < 299
    assert inner[whole].min() == span


def test_every_sequence_has_a_gap_and_something_to_see():
    valid = torch.arange(40) < torch.tensor([[1], [2], [3], [9], [40]])
    for seed in range(50):
        gaps = choose_gaps(valid, 0.01, 8, torch.Generator().manual_seed(seed))
        assert gaps.any(1).all() and not (gaps & ~valid).any()
        assert (gaps[1:] < valid[1:]).any(1).all()


def test_hidden_tokens_are_masked_exchanged_or_left():
    tokens = torch.full((100, 200), 7)
    gaps = torch.rand(100, 200, generator=torch.Generator().manual_seed(2)) < 0.5
    seen = hide(tokens, gaps, 22, torch.Generator().manual_seed(3))
    assert (seen[~gaps] == 7).all()
    hidden = seen[gaps]
    assert (hidden == 21).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (hidden == 7).float().mean() == pytest.approx(0.1 + 0.1 / 20, abs=0.02)
    assert set(hidden.tolist()) == {*range(20), 21}  # never the padding


def test_the_share_of_gaps_can_be_changed(tiny):
    tokens = draw(*[50] * 64)
    shares = []
    for prob in (0.1, 0.4):
        tiny.update_mask_prob(prob)
        shares.append(tiny(tokens, training=True, generator=torch.Generator().manual_seed(4))[2].float().mean().item())
    tiny.update_mask_prob(0.15)
    assert shares[0] < 0.18 and 0.35 < shares[1] < 0.45
    for prob in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            tiny.update_mask_prob(prob)


def test_it_learns_what_can_be_known():
    """In a sequence that counts, a hidden token follows from its neighbours."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = ProsodicSequenceEncoder(14, 32, 2, 4, pos_max_len=24, mask_span=2, dropout=0.0).train()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(250):
            tokens = (torch.randint(12, (32, 1)) + torch.arange(24)) % 12
            logits, _, gaps, original = model(tokens, training=True)
            loss = torch.nn.functional.cross_entropy(logits[gaps], original[gaps])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        logits, _, gaps, original = model(tokens, training=True)
    assert (logits[gaps].argmax(-1) == original[gaps]).float().mean() > 0.9


def test_a_saved_network_is_the_same_and_the_file_holds_plain_things(tiny, tmp_path):
    path = str(tmp_path / "own.pt")
    first = tiny.save(path, steps=3, note="x")
    assert first == tiny.save(str(tmp_path / "again.pt"), steps=3, note="x")  # the name is not in it
    loaded, facts = ProsodicSequenceEncoder.load(path)
    assert facts == {"steps": 3, "note": "x"} and not loaded.training and loaded.config == tiny.config
    tokens = draw(30, 12)
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens), tiny(tokens), rtol=0, atol=0)
    found = torch.load(path, weights_only=True)
    assert set(found) == {"format", "config", "state", "facts"}


def test_bare_weights_can_be_loaded_by_hand_and_are_refused_as_a_file(tiny, tmp_path):
    path = str(tmp_path / "bare.pt")
    torch.save(tiny.state_dict(), path)
    other = ProsodicSequenceEncoder(22, 32, 2, 4, pos_max_len=50)
    other.load_state_dict(torch.load(path, weights_only=True))
    np.testing.assert_array_equal(other.head.weight.detach(), tiny.head.weight.detach())
    with pytest.raises(ValueError, match="holds no encoder"):
        ProsodicSequenceEncoder.load(path)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a file of tensors"):
        ProsodicSequenceEncoder.load(str(tmp_path / "junk.pt"))
