"""An LSTM whose output is narrower than its memory: wherever a state goes."""

import numpy as np
import pytest
from compiler_cells import assert_scan_is_unroll, leaves

import tinyseq as ts
from tinyseq import functional, nn, optim, text, viz
from tinyseq.errors import ShapeError

T, B, D, H, P = 5, 2, 3, 8, 2
KINDS = [{}, {"peephole": "previous"}, {"layer_norm": True}]


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("options", KINDS)
def test_the_output_is_the_plain_one_times_w_p(options):
    """One step from zeros, where w_h has no say."""
    projected = nn.LSTM(D, H, proj_size=P, **options).layers[0].cell.double()
    plain = nn.LSTM(D, H, **options).layers[0].cell.double()
    state = {n: a for n, a in projected.state_dict().items() if n not in ("w_p", "w_h")}
    plain.load_state_dict(state | {"w_h": plain.w_h.numpy()})
    x = ts.tensor(random(B, D).astype(np.float64))
    (h, c), (wide, same) = projected(x), plain(x)
    np.testing.assert_array_equal(c.numpy(), same.numpy())
    np.testing.assert_allclose(h.numpy(), wide.numpy() @ projected.w_p.numpy(), rtol=1e-12)
    assert projected.w_h.shape == (P, 4 * H)


def test_sizes_of_layers():
    layer = nn.LSTM(D, H, 2, bidirectional=True, proj_size=P)
    y, state = layer(random(T, B, D))
    assert y.shape == (T, B, 2 * P)
    assert [s.shape for s in leaves(state)] == [(B, P), (B, H)] * 4
    assert (layer.hidden_size, layer.layers[0].hidden_size) == (2 * P, 2 * P)
    again, _ = layer(random(T, B, D), state)
    assert again.shape == y.shape
    one, last = layer(random(T, D))
    assert one.shape == (T, 2 * P)
    assert [s.shape for s in leaves(last)] == [(P,), (H,)] * 4


def test_compiled_is_unrolled():
    layer = nn.Stacked(nn.LearnedState(nn.VariationalDropout(nn.LSTMCell(D, H, proj_size=P), 0.2)))
    assert_scan_is_unroll(layer, T, B, lengths=[2, 5], given=False)


def test_a_wider_output_too():
    assert_scan_is_unroll(nn.Recurrent(nn.LSTMCell(D, 2, proj_size=5)), T, B, dtype=np.float32)


def test_in_a_training_step():
    layer, head = nn.LSTM(D, H, proj_size=P), nn.Linear(P, 2)
    adam = optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)

    def loss(x):
        y, _ = layer(x)
        return functional.mse_loss(head(y[1:]), x[:-1, :, :2])

    step = nn.TrainingStep(loss, adam, mode="compiled")
    losses = [step(random(T, 8, D)).item() for _ in range(150)]
    assert losses[-1] < losses[0] / 3


def test_in_models():
    decoder = nn.LSTM(3 + P, H, proj_size=P)
    encoder = nn.LSTM(3, H, bidirectional=True, proj_size=1)
    model = nn.EncoderDecoder(encoder, decoder, 5, 6, bos=0, eos=1, attention="additive")
    symbols = np.array([[2, 3], [1, 4]])
    assert model(symbols, symbols).shape == (2, 2, 6)
    assert len(model.beam_search(symbols, width=2, max_steps=3)) == 2
    language = text.LanguageModel(5, H, 2, proj_size=P)
    assert language(symbols)[0].shape == (2, 2, 5)
    assert np.isfinite(language.log_probability([1, 2]))


@pytest.mark.parametrize("level", ["cell", "op"])
def test_the_picture_has_both_widths(level):
    picture = viz.draw_unrolled(nn.LSTM(D, H, proj_size=P), level=level).dot
    assert "w_p  (8, 2)" in picture
    assert "(B, 2)" in picture
    assert "(B, 8)" in picture
    recorded = viz.record(nn.LSTM(D, H, proj_size=P), random(T, B, D))[0]
    assert (recorded["h"].shape, recorded["c"].shape) == ((T, B, P), (T, B, H))


@pytest.mark.parametrize(("call", "kind", "message"), [
    (
        lambda: nn.LSTM(D, H, proj_size=P)(random(T, B, D), ((random(B, H), random(B, H)),)),
        ShapeError,
        r"the state h has shape \(B=2, P=8\), expected \(B=2, P=2\)",
    ),
    (
        lambda: nn.onnx.export(nn.LSTM(D, H, proj_size=P), "none.onnx"),
        TypeError,
        r"ONNX's LSTM has no projection, and this LSTMCell has proj_size=2",
    ),
    (
        lambda: nn.interop.to_torch(nn.LSTMCell(D, H, proj_size=P)),
        TypeError,
        r"no LSTMCell with a proj_size.*nn.LSTM\(…, proj_size",
    ),
    (
        lambda: nn.notes.weights(nn.LSTMCell(D, H, proj_size=P)),
        TypeError,
        r"the notes have no LSTMCell with proj_size",
    ),
])  # fmt: skip
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
