"""The layers agree with PyTorch: outputs, final states and all gradients, in float64, to 1e-10.

PyTorch is in the extra `bench`; without it these tests are skipped.
"""

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn

torch = pytest.importorskip("torch")

D, H, T, B = 3, 4, 6, 2
# Ours -> PyTorch's order of gates; PyTorch's z is 1 − u, so its rows for u change sign.
ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 1, 3, 2]}


def gates(a, kind):
    """(…, k·H) in our order → (k·H, …) in PyTorch's."""
    blocks = np.split(a, len(ORDER[kind]), axis=-1)
    if kind == "GRU":
        blocks[0] = -blocks[0]
    return np.concatenate([blocks[i] for i in ORDER[kind]], axis=-1).T


def torch_twin(layer, kind, num_layers, bidirectional):
    twin = getattr(torch.nn, kind)(D, H, num_layers, bidirectional=bidirectional).double()
    for name, value in weights(layer, kind):
        getattr(twin, name).data = torch.from_numpy(np.ascontiguousarray(value))
    return twin


def weights(layer, kind, of=lambda p: p.numpy()):
    """PyTorch's names with our values (or gradients), in PyTorch's layout."""
    for i, one in enumerate(layer.layers):
        both = isinstance(one, nn.Bidirectional)
        cells = [one.forward_layer.cell, one.backward_layer.cell] if both else [one.cell]
        for cell, suffix in zip(cells, ("", "_reverse"), strict=False):
            yield f"weight_ih_l{i}{suffix}", gates(of(cell.w_x), kind)
            yield f"weight_hh_l{i}{suffix}", gates(of(cell.w_h), kind)
            yield f"bias_ih_l{i}{suffix}", gates(of(cell.b), kind)
            b_hh = np.zeros_like(of(cell.b))
            if kind == "GRU":
                b_hh[2 * H :] = of(cell.b_h)
            yield f"bias_hh_l{i}{suffix}", gates(b_hh, kind)


def run_packed(twin, x, state, lengths):
    """PyTorch's way of variable lengths, in any order."""
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = twin(packed, state)
    return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))[0], last


@pytest.mark.parametrize("lengths", [None, [3, 6]])
@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_layers_agree(kind, num_layers, bidirectional, given_state, lengths):
    rng = np.random.default_rng(0)
    layer = getattr(nn, kind)(D, H, num_layers, bidirectional=bidirectional).double()
    for p in layer.parameters():
        p._data[...] = rng.uniform(-0.7, 0.7, p.shape)
    twin = torch_twin(layer, kind, num_layers, bidirectional)
    x = ts.tensor(rng.standard_normal((T, B, D)), requires_grad=True)
    directions = 2 if bidirectional else 1
    parts = 2 if kind == "LSTM" else 1
    starts = [
        [ts.tensor(rng.standard_normal((B, H)), requires_grad=True) for _ in range(parts)]
        for _ in range(num_layers * directions)
    ]
    per_cell = [tuple(s) for s in starts]
    state = per_cell
    if bidirectional:
        state = [tuple(per_cell[2 * i : 2 * i + 2]) for i in range(num_layers)]
    y, last = layer(x, tuple(state) if given_state else None, lengths)

    def stacked(rows):
        return tuple(torch.from_numpy(np.stack([r[k].numpy() for r in rows])) for k in range(parts))

    tx = torch.from_numpy(x.numpy()).requires_grad_()
    t_start = tuple(s.requires_grad_() for s in stacked(per_cell))
    t_state = (t_start if kind == "LSTM" else t_start[0]) if given_state else None
    ty, t_last = twin(tx, t_state) if lengths is None else run_packed(twin, tx, t_state, lengths)
    t_last = t_last if kind == "LSTM" else (t_last,)

    ends = [end for one in last for end in (one if bidirectional else [one])]
    np.testing.assert_allclose(y.numpy(), ty.detach().numpy(), atol=1e-10)
    for k in range(parts):
        np.testing.assert_allclose(
            np.stack([end[k].numpy() for end in ends]), t_last[k].detach().numpy(), atol=1e-10
        )

    weight = rng.standard_normal(y.shape)
    total = (y * ts.tensor(weight)).sum()
    t_total = (ty * torch.from_numpy(weight)).sum()
    for k in range(parts):
        total = total + sum(((end[k] * end[k]).sum() for end in ends), start=ts.tensor(0.0))
        t_total = t_total + (t_last[k] ** 2).sum()
    total.backward()
    t_total.backward()
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), atol=1e-10)
    for name, g in weights(layer, kind, of=lambda p: p.grad.numpy()):
        theirs = getattr(twin, name).grad.numpy()
        if name.startswith(
            "bias_hh"
        ):  # one bias where PyTorch has two, but for the GRU's candidate
            g, theirs = (g[2 * H :], theirs[2 * H :]) if kind == "GRU" else (0, 0)
        np.testing.assert_allclose(g, theirs, atol=1e-10, err_msg=name)
    if given_state:
        for k in range(parts):
            ours = np.stack([s[k].grad.numpy() for s in per_cell])
            np.testing.assert_allclose(ours, t_start[k].grad.numpy(), atol=1e-10)
