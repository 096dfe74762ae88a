"""Encoder and decoder: attention, teacher forcing, greedy and beam search, padding, errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import functional, nn, optim
from tinyseq.errors import DtypeError, ShapeError

BOS, EOS = 0, 1
V_IN, V_OUT = 5, 4


def random(*shape, seed=0, requires_grad=False):
    rng = np.random.default_rng([seed, *shape])
    return ts.tensor(rng.standard_normal(shape), requires_grad=requires_grad)


def shaken(module, seed=1, scale=0.6):
    """float64, far from where training starts: nothing is 0, no two symbols are as likely."""
    rng = np.random.default_rng(seed)
    module.double()
    for p in module.parameters():
        p._data += rng.normal(0, scale, p.shape)
    return module


LAYERS = {  # encoder and decoder, for an embedding of 2, by the room that the decoder's input has
    "gru": lambda more: (nn.GRU(2, 3), nn.GRU(2 + more, 3)),
    "lstm to gru": lambda more: (nn.LSTM(2, 3, 2), nn.GRU(2 + more, 3)),
    "both directions": lambda more: (nn.GRU(2, 2, bidirectional=True), nn.LSTM(2 + more, 4, 2)),
    "cells": lambda more: (nn.RNNCell(2, 3), nn.LSTMCell(2 + more, 3)),
    "mixed stack": lambda more: (
        nn.Stacked(nn.Bidirectional(nn.RNNCell(2, 2), nn.GRUCell(2, 1))),
        nn.Stacked(nn.GRUCell(2 + more, 2), nn.LSTMCell(2, 3)),
    ),
}
ATTENTIONS = [None, "additive", "dot", "general"]


def model_of(kind="gru", attention=None, seed=1, **options):
    encoder, _ = LAYERS[kind](0)
    width = (
        nn.Recurrent(encoder).hidden_size if isinstance(encoder, nn.Cell) else encoder.hidden_size
    )
    encoder, decoder = LAYERS[kind](width if attention == "additive" else 0)
    return shaken(
        nn.EncoderDecoder(
            encoder, decoder, V_IN, V_OUT, bos=BOS, eos=EOS, attention=attention, **options
        ),
        seed,
    )


def symbols(T, B, size, seed=0):
    return np.random.default_rng([seed, T, B]).integers(0, size, (T, B))


# -- attention ------------------------------------------------------------------------------------


def attention_of(kind, H=3, M=3, seed=1):
    if kind == "additive":
        return shaken(nn.AdditiveAttention(H, M, 4), seed)
    return shaken(nn.DotAttention(H, M, general=kind == "general", scale=kind == "scaled"), seed)


def numpy_scores(kind, attention, query, memory):
    """Loops over t, s and b, as the papers write it."""
    (T, B, H), S = query.shape, memory.shape[0]
    out = np.empty((T, B, S))
    for t, b, s in itertools.product(range(T), range(B), range(S)):
        q, m = query[t, b], memory[s, b]
        if kind == "additive":
            inner = q @ attention.w_q.numpy() + m @ attention.w_m.numpy() + attention.b.numpy()
            out[t, b, s] = np.tanh(inner) @ attention.v.numpy()
        elif kind == "general":
            out[t, b, s] = q @ (m @ attention.weight.weight.numpy())
        else:
            out[t, b, s] = q @ m / (np.sqrt(H) if kind == "scaled" else 1)
    return out


@pytest.mark.parametrize("kind", ["additive", "dot", "general", "scaled"])
@given(T=st.integers(1, 3), B=st.integers(1, 3), S=st.integers(1, 4), seed=st.integers(0, 99))
def test_an_attention_is_its_equation(kind, T, B, S, seed):
    M = 2 if kind in ("additive", "general") else 3
    attention = attention_of(kind, 3, M, seed)
    query, memory = random(T, B, 3, seed=seed), random(S, B, M, seed=seed + 1)
    lengths = np.random.default_rng(seed).integers(1, S + 1, B)
    mask = np.arange(S)[:, None] < lengths
    context, weights = attention(query, memory, mask)
    expected = np.exp(numpy_scores(kind, attention, query.numpy(), memory.numpy())) * mask.T
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-9, atol=1e-14)
    assert not weights.numpy()[:, ~mask.T].any()  # exactly 0
    np.testing.assert_allclose(
        context.numpy(), np.einsum("tbs,sbm->tbm", expected, memory.numpy()), atol=1e-12
    )
    one, alpha = attention(query[0], memory, mask)
    np.testing.assert_allclose(one.numpy(), context.numpy()[0], atol=1e-12)
    np.testing.assert_allclose(alpha.numpy(), weights.numpy()[0], atol=1e-12)
    ahead, _ = attention(query, memory, mask, attention.keys(memory))
    np.testing.assert_array_equal(ahead.numpy(), context.numpy())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
def test_gradients_through_an_attention(kind, order):
    attention = attention_of(kind)
    query = random(2, 2, 3, requires_grad=True)
    memory = random(3, 2, 3, seed=1, requires_grad=True)
    mask = np.array([[True, True], [True, False], [True, False]])
    assert ts.gradcheck(
        lambda q, m, *_: attention(q, m, mask), [query, memory, *attention.parameters()], order
    )


def test_attention_at_large_scores():
    attention = nn.DotAttention(1, 1)
    memory = ts.tensor(np.array([1e4, -1e4, 0], np.float32).reshape(3, 1, 1), requires_grad=True)
    context, weights = attention(ts.tensor(np.ones((1, 1), np.float32)), memory)
    assert weights.numpy().tolist() == [[1, 0, 0]]
    context.sum().backward()
    assert np.isfinite(memory.grad.numpy()).all()


# -- the whole ------------------------------------------------------------------------------------


def by_hand(model, source, target, attention):
    """The logits of one sequence, step by step from the layers themselves."""
    memory, state = model.encoder(model.source_embedding(source[:, None]))
    state = state if model.bridge is None else model.bridge(state)
    logits, before = [], BOS
    for symbol in target:
        x = model.target_embedding(np.array([[before]]))
        if attention == "additive":
            last = state[-1]
            top = state[0] if isinstance(last, ts.Tensor) else last[0]
            context, _ = model.attention(top, memory)
            x = ts.concat([x, context.reshape(1, 1, -1)], axis=2)
        y, state = model.decoder(x, state)
        if attention in ("dot", "general"):
            context, _ = model.attention(y[0], memory)
        if attention:
            y = ts.tanh(model.combine(ts.concat([y[0], context], axis=1)))
        logits.append(model.head(y).reshape(-1).numpy())
        before = symbol
    return np.array(logits)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_logits_are_those_of_the_layers_step_by_step(kind, attention):
    model = model_of(kind, attention)
    source, target = symbols(4, 2, V_IN), symbols(3, 2, V_OUT)
    logits = model(source, target).numpy()
    assert logits.shape == (3, 2, V_OUT)
    for b in range(2):
        expected = by_hand(model, source[:, b], target[:, b], attention)
        np.testing.assert_allclose(logits[:, b], expected, rtol=1e-9, atol=1e-11)


def test_a_bridge_only_where_it_is_needed():
    assert model_of("gru").bridge is None
    model = model_of("both directions")
    _, state = model.encoder(model.source_embedding(symbols(4, 2, V_IN)))
    flat = np.concatenate([state[0][0][0].numpy(), state[0][1][0].numpy()], axis=1)
    linear = model.bridge.linear
    expected = np.tanh(flat @ linear.weight.numpy() + linear.bias.numpy())
    (h0, c0), (h1, c1) = model.bridge(state)
    ours = np.concatenate([s.numpy() for s in (h0, c0, h1, c1)], axis=1)
    assert h0.shape == c1.shape == (2, 4)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_padding_changes_nothing(attention):
    """Of source and target, in any order of lengths: logits, loss, gradients, what is written."""
    model = model_of("both directions", attention)
    source, target = symbols(5, 3, V_IN), symbols(4, 3, V_OUT)
    n, m = np.array([3, 5, 1]), np.array([4, 2, 3])
    model.loss(source, target, n, m).backward()
    loss = model.loss(source, target, n, m).item()
    together = [p.grad.numpy() for p in model.parameters()]
    logits, beams = model(source, target, n).numpy(), model.beam_search(source, n, 3, 4)
    written = model.greedy(source, n, 4)
    for other in (0, V_IN - 1):  # whatever the padding is
        padded = np.where(np.arange(5)[:, None] < n, source, other)
        behind = np.where(np.arange(4)[:, None] < m, target, other % V_OUT)
        assert model.loss(padded, behind, n, m).item() == loss
        np.testing.assert_array_equal(model(padded, target, n).numpy(), logits)
    model.zero_grad()
    total = 0.0
    for b in range(3):
        one, its = source[: n[b], b : b + 1], target[: m[b], b : b + 1]
        np.testing.assert_allclose(model(one, its).numpy()[:, 0], logits[: m[b], b], atol=1e-12)
        part = model.loss(one, its) * int(m[b])
        part.backward()
        total += part.item() / m.sum()
        assert model.greedy(one, max_steps=4)[0] == written[b]
        for ours, theirs in zip(model.beam_search(one, None, 3, 4)[0], beams[b], strict=True):
            assert ours.symbols == theirs.symbols
            assert ours.score == pytest.approx(theirs.score)
    assert loss == pytest.approx(total)
    for p, g in zip(model.parameters(), together, strict=True):
        np.testing.assert_allclose(p.grad.numpy() / m.sum(), g, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_of_the_loss(attention, order):
    """Through attention, bridge, embeddings and both layers, with padding."""
    more = 4 if attention == "additive" else 0
    encoder, decoder = nn.GRU(2, 2, bidirectional=True), nn.RNN(1 + more, 4)
    model = shaken(
        nn.EncoderDecoder(encoder, decoder, 3, 3, bos=0, eos=1, attention=attention), scale=0.3
    )
    source, target = symbols(2, 2, 3), symbols(2, 2, 3)
    checked = [p for name, p in model.named_parameters() if not name.startswith("encoder")]
    checked = [*checked, model.encoder.layers[0].backward_layer.cell.w_h] if order == 1 else checked
    if order == 2:  # of the parameters nearest to the attention, for time
        near = ("attention", "source_embedding", "bridge.linear.bias", "head.bias")
        checked = [p for name, p in model.named_parameters() if name.startswith(near)]
    assert ts.gradcheck(lambda *_: model.loss(source, target, [2, 1], [1, 2]), checked, order)


def test_a_source_of_vectors():
    model = nn.EncoderDecoder(nn.GRU(3, 4), nn.GRU(2, 4), None, V_OUT, bos=BOS, eos=EOS).double()
    source = random(5, 2, 3, requires_grad=True)
    assert model.source_embedding is None
    model.loss(source, symbols(3, 2, V_OUT)).backward()
    assert source.grad.numpy().all()


class OwnAttention(nn.Module):
    """As a user would write one: the mean of the memory, whatever is asked."""

    def forward(self, query, memory, mask, keys):
        assert keys is None
        T, B, _ = query.shape
        mean = memory.mean(axis=0, keepdims=True)
        weights = ts.tensor(np.full((T, B, len(memory)), 1 / len(memory)))
        return ts.broadcast_to(mean, (T, *mean.shape[1:])), weights


def test_an_attention_of_your_own():
    model = model_of("gru", OwnAttention())
    source, target = symbols(4, 2, V_IN), symbols(3, 2, V_OUT)
    assert model.alignment(source, target).tolist() == [[[0.25] * 4] * 2] * 3
    assert len(model.beam_search(source, width=2)) == 2


# -- teacher forcing ------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_teacher_forcing_by_rate(attention):
    model = model_of("gru", attention, seed=3)
    source, target = symbols(4, 3, V_IN, 1), symbols(6, 3, V_OUT, 1)
    before = ts.random.get_state()
    full = model(source, target).numpy()
    free = model(source, target, teacher_forcing=0.0).numpy()
    assert ts.random.get_state() == before  # nothing is drawn at 0 and 1
    # told: the inputs are the target's; free: what the model said itself
    np.testing.assert_allclose(free, model(source, free.argmax(-1)).numpy(), rtol=1e-9, atol=1e-11)
    assert not np.allclose(free, full)
    rng = np.random.default_rng(5)
    told = np.random.default_rng(5).random((6, 3)) < 0.4
    mixed = model(source, target, teacher_forcing=0.4, rng=rng).numpy()
    inputs = np.where(told, target, mixed.argmax(-1))
    np.testing.assert_allclose(mixed, model(source, inputs).numpy(), rtol=1e-9, atol=1e-11)
    assert told.any()
    assert not told.all()
    nearly = np.nextafter(1.0, 0)  # step by step, and always told
    stepwise = model(source, target, teacher_forcing=nearly, rng=rng).numpy()
    np.testing.assert_allclose(stepwise, full, rtol=1e-9, atol=1e-11)


def test_teacher_forcing_draws_from_the_librarys_stream_by_default():
    model = model_of()
    source, target = symbols(4, 8, V_IN), symbols(6, 8, V_OUT)
    results = []
    for seed in (1, 1, 2):
        ts.seed(seed)
        results.append(model(source, target, teacher_forcing=0.5).numpy())
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_dropout_in_training_only():
    model = model_of(dropout=0.5)
    source, target = symbols(4, 2, V_IN), symbols(3, 2, V_OUT)
    assert not np.array_equal(model(source, target).numpy(), model(source, target).numpy())
    before = ts.random.get_state()
    assert model.greedy(source) == model.greedy(source)
    assert model.beam_search(source) == model.beam_search(source)
    assert ts.random.get_state() == before
    assert model.training
    model.eval()
    np.testing.assert_array_equal(model(source, target).numpy(), model(source, target).numpy())


# -- searching ------------------------------------------------------------------------------------


def log_probability(model, source, written):
    """Of these symbols, the end among them if it is there, by teacher forcing."""
    target = np.array(written)[:, None]
    return -functional.cross_entropy(model(source, target), target, reduction="sum").item()


def everything(T, V):
    """All that can be written in T steps: what ends by then, and what does not."""
    others = [v for v in range(V) if v != EOS]
    for n in range(T):
        for body in itertools.product(others, repeat=n):
            yield [*body, EOS]
    for body in itertools.product(others, repeat=T):
        yield list(body)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_beam_wide_enough_is_exhaustive_search(attention, alpha):
    T, V = 3, 3
    more = 3 if attention == "additive" else 0
    encoder, decoder = nn.GRU(2, 3), nn.GRU(2 + more, 3)
    model = nn.EncoderDecoder(encoder, decoder, V_IN, V, bos=0, eos=EOS, attention=attention)
    shaken(model, seed=2)
    source = symbols(4, 2, V_IN)
    found = model.beam_search(source, width=V**T, max_steps=T, length_penalty=alpha)
    for b in range(2):
        every = []
        for written in everything(T, V):
            log_p = log_probability(model, source[:, b : b + 1], written)
            score = log_p / ((5 + len(written)) / 6) ** alpha
            ended = written[-1] == EOS
            every.append((score, log_p, written[:-1] if ended else written, ended))
        every.sort(key=lambda e: -e[0])
        assert len(found[b]) == len(every) == 15
        for ours, (score, log_p, written, ended) in zip(found[b], every, strict=True):
            assert (ours.symbols, ours.ended) == (written, ended)
            assert ours.score == pytest.approx(score)
            assert ours.log_probability == pytest.approx(log_p)
        total = sum(np.exp(h.log_probability) for h in found[b])
        assert total == pytest.approx(1)  # all that can be written, each way once


@pytest.mark.parametrize("attention", ATTENTIONS)
@given(seed=st.integers(0, 999), alpha=st.sampled_from([0.0, 0.7]))
def test_a_beam_of_one_is_greedy(attention, seed, alpha):
    model = model_of("gru", attention, seed)
    source = symbols(3, 4, V_IN, seed)
    greedy = model.greedy(source, max_steps=6)
    beams = model.beam_search(source, width=1, max_steps=6, length_penalty=alpha)
    assert [[h.symbols for h in beam] for beam in beams] == [[w] for w in greedy]
    for b, written in enumerate(greedy):  # and greedy is the likeliest symbol after the likeliest
        target = [*written, EOS][:6]
        logits = model(source[:, b : b + 1], np.array(target)[:, None]).numpy()
        assert logits[:, 0].argmax(-1).tolist() == target
        assert beams[b][0].ended == (target[-1] == EOS)


@given(seed=st.integers(0, 999), width=st.integers(2, 6), alpha=st.sampled_from([0.0, 0.6, 2.0]))
def test_a_beam_ranks_by_what_it_says(seed, width, alpha):
    model = model_of("gru", "dot", seed)
    source = symbols(3, 2, V_IN, seed)
    for b, beam in enumerate(model.beam_search(source, None, width, 4, alpha)):
        assert 1 <= len(beam) <= width
        assert len({(*h.symbols, h.ended) for h in beam}) == len(beam)
        assert [h.score for h in beam] == sorted((h.score for h in beam), reverse=True)
        for h in beam:
            assert EOS not in h.symbols
            written = [*h.symbols, EOS] if h.ended else h.symbols
            assert len(written) <= 4
            assert h.ended or len(written) == 4
            log_p = log_probability(model, source[:, b : b + 1], written)
            assert h.log_probability == pytest.approx(log_p)
            assert h.score == pytest.approx(log_p / ((5 + len(written)) / 6) ** alpha)


def test_a_wider_beam_finds_what_greedy_misses():
    """P(2) > P(3), but after 2 nothing is sure, after 3 the end is."""

    class Fixed(nn.Module):
        """A recurrence whose output is the symbol that it was told last."""

        input_size = hidden_size = 4

        def __call__(self, x, state):
            return (x * 1.0,)

        def initial_state(self, batch_size, dtype=np.float32):
            return (ts.tensor(np.zeros((batch_size, 4), dtype)),)

    model = nn.EncoderDecoder(nn.RNNCell(1, 4), Fixed(), 1, 4, bos=0, eos=1)
    model.target_embedding.weight.data = np.eye(4)
    p = [[0.01, 0.01, 0.55, 0.43], [0.25] * 4, [0.3, 0.3, 0.2, 0.2], [0.01, 0.97, 0.01, 0.01]]
    model.head.weight.data = np.log(p)
    source = np.zeros((1, 1), int)
    assert model.greedy(source, max_steps=3)[0][0] == 2
    best = model.beam_search(source, width=3, max_steps=3)[0][0]
    assert best.symbols == [3]
    assert best.log_probability == pytest.approx(np.log(0.43 * 0.97), abs=1e-5)
    favour = [model.beam_search(source, None, 16, 3, a)[0][0].symbols for a in (0.0, 20.0)]
    assert len(favour[0]) < len(favour[1])  # the penalty is on the short


# -- it learns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_it_learns_to_turn_words_around(attention):
    rng = np.random.default_rng(0)
    more = 32 if attention == "additive" else 0
    encoder, decoder = nn.GRU(12, 16, bidirectional=True), nn.GRU(12 + more, 32)
    model = nn.EncoderDecoder(encoder, decoder, 8, 8, bos=0, eos=1, attention=attention)
    optimizer = optim.Adam(model.parameters(), lr=0.02)

    def words(B):
        n = rng.integers(1, 4, B)
        source, target = np.zeros((3, B), int), np.full((4, B), EOS)
        for b in range(B):
            source[: n[b], b] = rng.integers(2, 8, n[b])
            target[: n[b], b] = source[: n[b], b][::-1]
        return source, target, n

    for _ in range(120):
        source, target, n = words(32)
        optimizer.zero_grad()
        model.loss(source, target, n, n + 1, teacher_forcing=0.9).backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    source, target, n = words(100)
    expected = [target[: n[b], b].tolist() for b in range(100)]
    assert sum(a == b for a, b in zip(model.greedy(source, n, 6), expected, strict=True)) > 90
    found = [beam[0].symbols for beam in model.beam_search(source, n, 3, 6)]
    assert sum(a == b for a, b in zip(found, expected, strict=True)) > 90
    weights = model.alignment(source, target, n)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert not weights[:, np.arange(3) >= n[:, None]].any()
    long = n == 3  # the first symbol is written while the last one is looked at
    assert weights[0, long].mean(axis=0).argmax() == 2


# -- errors ---------------------------------------------------------------------------------------

GOOD = nn.EncoderDecoder(nn.GRU(2, 3), nn.GRU(2, 3), V_IN, V_OUT, bos=BOS, eos=EOS)
X, Y = symbols(4, 2, V_IN), symbols(3, 2, V_OUT)


def made(encoder=None, decoder=None, V=V_OUT, bos=BOS, eos=EOS, attention=None):
    encoder, decoder = encoder or nn.GRU(2, 3), decoder or nn.GRU(2, 3)
    return nn.EncoderDecoder(encoder, decoder, V_IN, V, bos=bos, eos=eos, attention=attention)


def diverged():
    model = made()
    model.head.bias._data[0] = np.nan
    return model


def attend(query=(2, 3), memory=(4, 2, 3), mask=None):
    arrays = np.ones(query, np.float32), np.ones(memory, np.float32)
    return nn.DotAttention(3, 3)(*arrays, mask)


ERRORS = [
    (lambda: made(bos=4), ValueError, r"bos=4 is no symbol of the target, 0 … 3"),
    (lambda: made(eos=-1), ValueError, r"eos=-1 must be .* at least 0"),
    (lambda: made(eos=BOS), ValueError, r"bos and eos are both 0"),
    (lambda: made(V=0), ValueError, r"target_size=0 must be"),
    (lambda: made(attention="none"), ValueError, r"attention='none' must be 'additive'"),
    (
        lambda: made(decoder=nn.GRU(2, 3, bidirectional=True)),
        ValueError,
        r"decoder reads from the end \(layers.0 \(Bidirectional\)\)",
    ),
    (
        lambda: made(encoder=nn.GRU(2, 3, batch_first=True)),
        ValueError,
        r"the encoder was made with batch_first=True",
    ),
    (
        lambda: made(attention="additive"),
        ValueError,
        r"input_size=2 has no room .* context of M=3 .* embedding \+ 3",
    ),
    (
        lambda: made(decoder=nn.GRU(2, 4), attention="dot"),
        ValueError,
        r"query_size=4 and memory_size=3 differ.*general=True",
    ),
    (lambda: GOOD(X[0], Y), ShapeError, r"the source has shape \(2,\), expected \(steps, B\)"),
    (lambda: GOOD(X[:0], Y), ShapeError, r"the source has shape \(0, 2\)"),
    (lambda: GOOD(X, Y[:, 0]), ShapeError, r"the target has shape \(3,\)"),
    (lambda: GOOD(X, Y[:, :1]), ShapeError, r"the source has B=2 .* target \(T=3, B=1\)"),
    (lambda: GOOD(X + V_IN, Y), IndexError, r"source: index \d is outside of 0 … 4"),
    (lambda: GOOD(X, Y + V_OUT), IndexError, r"target: index \d is outside of 0 … 3 \(V=4\)"),
    (lambda: GOOD(X * 1.0, Y), DtypeError, r"source: indices must be whole numbers, not float64"),
    (lambda: GOOD(X, Y, [4, 5]), ValueError, r"lengths: 5 is outside of 0 … 4"),
    (lambda: GOOD.loss(X, Y, None, [4, 1]), ValueError, r"lengths: 4 is outside of 0 … 3"),
    (
        lambda: GOOD(X, Y, teacher_forcing=1.5),
        ValueError,
        r"teacher_forcing=1.5 must be .* from 0 to 1",
    ),
    (
        lambda: GOOD(X, Y, teacher_forcing=np.nan),
        ValueError,
        r"teacher_forcing=nan must be .* from 0 to 1",
    ),
    (lambda: GOOD.alignment(X, Y), ValueError, r"has no attention to show"),
    (lambda: GOOD.greedy(X, max_steps=0), ValueError, r"max_steps=0 must be"),
    (lambda: GOOD.beam_search(X, width=0), ValueError, r"width=0 must be"),
    (lambda: GOOD.beam_search(X, max_steps=0), ValueError, r"max_steps=0 must be"),
    (lambda: GOOD.beam_search(X, length_penalty=-1.0), ValueError, r"length_penalty=-1.0 must be"),
    (lambda: diverged().greedy(X), ValueError, r"for head\.bias holds nan, first at \[0\]"),
    (lambda: diverged().beam_search(X), ValueError, r"for head\.bias holds nan, first at \[0\]"),
    (lambda: attend(query=(2, 4)), ShapeError, r"DotAttention: query \(1, 2, 4\) and memory"),
    (lambda: attend(memory=(4, 2, 2)), ShapeError, r"expected \(T, B, H=3\) and \(S, B, M=3\)"),
    (lambda: attend(query=(3, 3)), ShapeError, r"query \(T=1, B=3, H=3\) .* need the same batch B"),
    (lambda: attend(memory=(0, 2, 3)), ShapeError, r"memory \(S=0, B=2, M=3\) .* S ≥ 1"),
    (lambda: attend(mask=np.ones((4, 2))), ShapeError, r"mask must be booleans .*got float64"),
    (lambda: attend(mask=np.ones((2, 4), bool)), ShapeError, r"\(S, B\) = \(4, 2\).*\(2, 4\)"),
    (lambda: GOOD.loss(X, Y, None, [0, 0]), ValueError, r"loss: all targets are ignored"),
    (
        lambda: nn.EncoderDecoder(nn.GRU(2, 3), nn.GRU(2, 3), None, V_OUT, bos=BOS, eos=EOS)(
            np.ones((4, 2)), Y
        ),
        ShapeError,
        r"source in EncoderDecoder: x has shape \(4, 2\), expected",
    ),
    (lambda: nn.AdditiveAttention(3, 3, 0), ValueError, r"attention_size=0 must be"),
    (
        lambda: nn.Attention(3, 3)(np.ones((2, 3)), np.ones((4, 2, 3))),
        NotImplementedError,
        r"Attention has no score yet",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
