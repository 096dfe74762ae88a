"""Tensor, grad, backward, no_grad, gradcheck: what the engine promises."""

import subprocess
import sys

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import changes, graph
from tinyseq.compiler.pool import Pool
from tinyseq.errors import DtypeError, GraphError, ShapeError
from tinyseq.op import REGISTRY, primitive


def leaf(data, name=None):
    return ts.tensor(np.array(data, np.float64), requires_grad=True, name=name)


# -- Tensor -------------------------------------------------------------------------------------


def test_dtypes_of_new_tensors():
    assert ts.tensor([1.0]).dtype == np.float32
    assert ts.tensor(np.ones(1)).dtype == np.float64
    assert ts.tensor(np.ones(1, np.int32)).dtype == np.int64
    assert ts.tensor([True]).dtype == bool
    assert ts.tensor([1], dtype=np.float64).dtype == np.float64
    assert ts.tensor([1.0, 2.0], dtype=int).dtype == np.int64


@pytest.mark.parametrize(
    ("data", "dtype", "message"),
    [
        (np.ones(1, np.float16), None, "float16 is not supported.*astype"),
        (["a"], None, "is not supported"),
        (["a"], np.float32, "is not supported"),
        ([1j], None, "is not supported"),
        ([1.5], np.int64, "cut off the fractions"),
        ([np.nan], np.int64, "cut off the fractions"),
        ([np.inf], np.int64, "int64 cannot hold inf"),
        ([-np.inf, 1.0], np.int64, "int64 cannot hold inf"),
        ([2.0**63], np.int64, r"int64 cannot hold 9.22\d*e\+18, of this float64 data"),
        (np.array([2**63], np.uint64), None, "int64 cannot hold 9223372036854775808"),
        ([[1.0], [1.0, 2.0]], None, "no rectangular array"),
    ],
)
def test_data_that_is_refused(data, dtype, message):
    with pytest.raises(DtypeError, match=message):
        ts.tensor(data, dtype=dtype)


def test_the_largest_whole_numbers_are_held():
    ends = [-(2**63), 2**63 - 1]
    assert ts.tensor(ends).numpy().tolist() == ends
    assert ts.tensor(np.array(ends[1:], np.uint64)).item() == ends[1]
    assert ts.tensor([-(2.0**63), 2.0**62], dtype=np.int64).numpy().tolist() == [-(2**63), 2**62]
    for x in (ts.tensor([np.inf]), ts.tensor([-1e19], dtype=np.float64)):
        with pytest.raises(DtypeError, match="int64 cannot hold"):
            ts.ops.astype(x, np.int64)


def test_whole_numbers_have_no_gradient():
    with pytest.raises(DtypeError, match="int64 cannot require a gradient"):
        ts.tensor([1, 2], requires_grad=True)


def test_what_is_assigned_to_a_tensor_is_looked_at():
    x = ts.tensor([1.0, 2.0], requires_grad=True)
    x.grad = g = ts.tensor([3.0, 4.0])
    for wrong in (np.ones(2), 1.0, [1.0, 2.0], "g"):
        with pytest.raises(TypeError, match=r"grad=.* must be a Tensor or None"):
            x.grad = wrong
    with pytest.raises(
        ShapeError, match=r"grad of shape \(1,\) is none of a tensor of shape \(2,\)"
    ):
        x.grad = ts.tensor([1.0])
    assert x.grad is g
    for wrong in (3, 1, None, "yes", [True]):
        with pytest.raises(TypeError, match=r"requires_grad=.* must be True or False"):
            x.requires_grad = wrong
    n = ts.tensor([1, 2])
    with pytest.raises(DtypeError, match="int64 cannot require a gradient"):
        n.requires_grad = True
    assert x.requires_grad is True
    assert n.requires_grad is False
    x.requires_grad = np.bool_(False)
    assert x.requires_grad is False


def test_data_is_copied_in_and_numpy_copies_out():
    source = np.ones(2)
    x = ts.tensor(source)
    source[0] = 5
    x.numpy()[1] = 5
    assert x.tolist() == [1.0, 1.0]


def test_a_python_number_loses_nothing_on_its_way_to_float64():
    x = ts.tensor(np.array([1.0, 3.0]))
    np.testing.assert_array_equal((x * 0.1).numpy(), np.array([1.0, 3.0]) * 0.1)
    np.testing.assert_array_equal((0.1 - x).numpy(), 0.1 - np.array([1.0, 3.0]))
    assert (ts.tensor([1.0]) * 0.1).dtype == np.float32


def test_a_number_keeps_its_digits_beside_float64():
    x = ts.tensor(np.ones(1))
    assert [(x * 0.1).item(), (0.1 + x).item(), ts.where(x > 0, 0.1, x).item()] == [0.1, 1.1, 0.1]
    assert (ts.tensor([1.0]) * 0.1).dtype == np.float32
    assert (ts.tensor([1]) * 0.1).dtype == np.float32


def test_scalars_and_iteration():
    x = ts.tensor([[1.0, 2.0]])
    assert len(x) == 1
    assert [row.tolist() for row in x] == [[1.0, 2.0]]
    assert float(x[0, 0]) == 1.0
    assert int(ts.tensor(3)) == 3
    assert [10, 11, 12, 13][ts.tensor(3)] == 13
    assert bool(ts.tensor(True))
    with pytest.raises(ValueError, match=r"item\(\) needs a tensor of one element.*\(1, 2\)"):
        x.item()
    with pytest.raises(TypeError, match="without axes"):
        len(x[0, 0])
    with pytest.raises(DtypeError, match="is no index"):
        [1, 2][ts.tensor(1.0)]


def test_formats():
    loss = ts.tensor(1.23456, requires_grad=True)
    assert f"{loss:.3f}|{loss[None]:8.1e}|{ts.tensor(3):03d}" == "1.235| 1.2e+00|003"
    assert f"{loss}" == str(loss)
    assert f"{ts.tensor([1.0, 2.0])}" == "Tensor([1., 2.])"
    with pytest.raises(TypeError, match=r"format spec '.3f' needs a tensor of one .*shape \(2,\)"):
        f"{ts.tensor([1.0, 2.0]):.3f}"


def test_what_is_no_number_is_equal_to_no_tensor():
    x = ts.tensor([1.0, 2.0])
    for other in (None, "a", object(), {}):
        assert (x == other) is False
        assert (x != other) is True
        assert (other == x) is False
    assert None not in [x]
    assert (x == [1.0, 3.0]).tolist() == [True, False]
    assert (x != np.float64(1)).tolist() == [False, True]
    with pytest.raises(ShapeError):
        x == [1.0, 2.0, 3.0]  # noqa: B015
    with pytest.raises(DtypeError, match=r"a tensor holds numbers and booleans"):
        x + None


def test_repr():
    x = ts.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "Tensor([1., 2.], requires_grad=True)"
    y = ts.tanh(x)
    assert repr(y).endswith("op=tanh)")
    y.sum().backward()
    assert repr(y).endswith("op=freed)")
    assert repr(ts.tensor(np.ones(1))) == "Tensor([1.], dtype=float64)"


def test_no_silent_detach():
    x = leaf([1.0])
    with pytest.raises(GraphError, match="cut it off silently"):
        np.asarray(x)
    assert np.asarray(x.detach()).tolist() == [1.0]


def test_new_data_must_have_the_old_shape():
    x = leaf([1.0, 2.0])
    x.data = [3, 4]
    assert x.tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match=r"shape \(3,\) cannot replace data of shape \(2,\)"):
        x.data = np.ones(3)


# -- grad and backward --------------------------------------------------------------------------


def test_grad_and_backward_agree():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    gx, gy = ts.grad((x * y).sum(), [x, y])
    assert x.grad is None
    (x * y).sum().backward()
    assert gx.tolist() == x.grad.tolist() == [3.0, 4.0]
    assert gy.tolist() == y.grad.tolist() == [1.0, 2.0]


def test_grad_of_one_tensor_is_one_tensor_and_of_several_a_tuple():
    x = leaf(2.0)
    assert ts.grad(x * x, x).item() == 4.0
    assert isinstance(ts.grad(x * x, [x]), tuple)


def test_gradients_of_any_order():
    x = leaf(0.5)
    y = ts.exp(2 * x)
    for n in range(1, 6):
        y = ts.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(2**n * np.exp(1.0))


def test_grad_towards_a_tensor_in_the_middle():
    x = leaf([1.0, 2.0])
    h = x * 3
    (g,) = ts.grad((h * h).sum(), [h])
    assert g.tolist() == [6.0, 12.0]


def test_grad_outputs_and_several_outputs():
    x = leaf([1.0, 2.0])
    (g,) = ts.grad(x * x, [x], grad_outputs=np.array([1.0, 10.0]))
    assert g.tolist() == [2.0, 40.0]
    y = x * x
    (g,) = ts.grad([y.sum(), (3 * x)], [x], grad_outputs=[None, ts.tensor(np.ones(2))])
    assert g.tolist() == [5.0, 7.0]


def test_what_y_does_not_depend_on_gets_zeros():
    x, other = leaf([1.0]), leaf([1.0, 2.0])
    assert ts.grad((x * x).sum(), other).tolist() == [0.0, 0.0]


def test_gradients_add_up_until_they_are_set_to_none():
    x = leaf([1.0])
    for _ in range(2):
        (2 * x).sum().backward()
    assert x.grad.tolist() == [4.0]


def test_a_tensor_used_twice():
    x = leaf([2.0])
    (x * x + x).sum().backward()
    assert x.grad.tolist() == [5.0]


def test_leaves_never_share_a_gradient_array():
    a, b = leaf([1.0, 1.0]), leaf([1.0, 1.0])
    given = ts.tensor(np.ones(2))
    (a + b).backward(given)
    a.grad.data[0] = 7
    assert b.grad.tolist() == given.tolist() == [1.0, 1.0]
    c = leaf([1.0, 1.0])
    c.sum().backward()  # a broadcast: its memory could not be written to
    c.grad.data[0] = 7
    assert c.grad.tolist() == [7.0, 1.0]


def test_backward_with_create_graph_is_differentiable():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    x.grad.backward()
    # .grad was 27, and its own gradient, 18, was added to it
    assert x.grad.item() == 45.0


def test_second_backward_over_a_freed_graph():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(
        GraphError, match=r"freed by an earlier backward.*detach.*retain_graph=True"
    ):
        y.backward()


def test_second_backward_over_a_kept_graph():
    x = leaf([1.5])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [6.0]


def test_partial_graphs_are_freed_apart():
    x = leaf([2.0])
    shared = x * x
    a, b = (3 * shared).sum(), (5 * shared).sum()
    a.backward()
    with pytest.raises(GraphError, match="freed"):
        b.backward()


def test_no_grad_and_detach():
    x = leaf([1.0])
    with ts.no_grad():
        assert not (x * x).requires_grad
    assert (x * x).requires_grad
    y = x.detach() * x
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    with pytest.raises(RuntimeError, match="inside"), ts.no_grad():
        raise RuntimeError("inside")
    assert (x * x).requires_grad  # put back after the error


def test_grad_through_a_freed_recording_is_an_error_and_not_zero():
    x = leaf([1.0])
    h = x * 2
    (h * 3).sum().backward()
    for y in ((h * h).sum(), (h * h).sum() + x.sum()):
        with pytest.raises(GraphError, match="freed by an earlier backward"):
            ts.grad(y, x)


def test_recorded_gradients_share_no_array_and_stay_recorded_when_clipped():
    a, b, c = leaf([3.0]), leaf([4.0]), leaf([1.0, 1.0])
    (a + b).backward(np.ones(1), create_graph=True)
    c.sum().backward(create_graph=True)
    assert ts.optim.clip_grad_norm([a, b, c], 1.0) == pytest.approx(2.0)
    assert (a.grad.tolist(), b.grad.tolist(), c.grad.tolist()) == ([0.5], [0.5], [0.5, 0.5])
    x = leaf([1.0])
    (x**3).sum().backward(create_graph=True)
    ts.optim.clip_grad_norm([x], 0.1)
    (g,) = ts.grad(x.grad.sum(), [x])
    assert g.item() == pytest.approx(6 * 0.1 / 3)  # clipping to 0.1 is one more op, × 0.1/3


def test_errors_of_grad():
    x = leaf([1.0, 2.0], name="speed")
    with pytest.raises(ShapeError, match=r"only defined for one element.*gradient="):
        (x * x).backward()
    with pytest.raises(ShapeError, match=r"gradient given has shape \(3,\).*\(2,\)"):
        (x * x).backward(np.ones(3))
    with pytest.raises(GraphError, match="was not recorded"):
        ts.tensor(1.0).backward()
    with pytest.raises(GraphError, match="does not require a gradient"):
        ts.grad((x * x).sum(), ts.tensor(1.0))
    with pytest.raises(GraphError, match="was not recorded"), ts.no_grad():
        (x * x).sum().backward()
    with pytest.raises(ShapeError, match=r"2 tensors needs a list of 2 grad_outputs.*got 1"):
        ts.grad([x.sum(), x.sum()], x, [None])
    with pytest.raises(ShapeError, match=r"got one"):
        ts.grad([x.sum(), x.sum()], x, ts.tensor(1.0))


# -- changed in place ---------------------------------------------------------------------------


def test_a_leaf_that_was_changed_in_place_is_named():
    x = leaf([1.0, 2.0], name="speed")
    y = (x * x).sum()
    x.data[0] = 9.0
    with pytest.raises(
        GraphError, match=r"mul: input 0, tensor 'speed' of shape \(2,\), was changed in"
    ):
        y.backward()
    assert x.grad is None


def test_a_result_that_was_changed_in_place_is_named():
    x = leaf([1.0])
    y = ts.exp(x)
    z = y.sum()
    y.data[...] = 0.0
    with pytest.raises(GraphError, match=r"exp: its result.*was changed in place"):
        z.backward()


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: np.asarray(a)[::-1, ::2]])
def test_arrays_of_any_layout_are_watched(layout):
    x = ts.Tensor.wrap(layout(np.ones((3, 4))))
    x.requires_grad = True
    array = x.data
    y = (x * x).sum()
    y.backward(retain_graph=True)
    array[1, 1] = 5.0
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_an_array_held_from_before_is_watched():
    x = leaf([1.0])
    array = x.data
    y = (x * x).sum()
    array += 1
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_a_change_through_a_view_is_noticed():
    x, w = ts.tensor(np.ones((2, 2))), leaf([1.0, 1.0])
    y = (x[0] * w).sum()  # x[0] shares memory with x
    x.data[0] = 5.0
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_a_change_through_a_view_made_after_the_array_was_out_is_noticed():
    x, w = ts.tensor(np.ones((2, 2))), leaf([1.0, 1.0])
    array = x.data
    y = (x[0] * w).sum()
    array[0] = 5.0
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_reading_a_long_sequence_whose_array_is_out_stays_linear(monkeypatch):
    """Each step looks at its own row, not at the whole sequence again."""
    looked_at = []
    checksum = changes._checksum
    monkeypatch.setattr(changes, "_checksum", lambda a: looked_at.append(a.size) or checksum(a))
    x, w = ts.tensor(np.ones((200, 3))), leaf([1.0, 1.0, 1.0])
    array = x.data
    assert array.size == 600
    sum(((x[t] * w).sum() for t in range(200)), start=ts.tensor(0.0)).backward()
    assert sum(looked_at) < 10 * x.size


def test_memory_that_is_handed_out_once_more_counts_as_new():
    pool = Pool()
    first = ts.Tensor.wrap(pool.take((3,), np.float64))
    first.data[...] = 1.0
    first.changed()
    assert changes.changed(first._data, since=0)
    del first
    assert not changes.changed(pool.take((3,), np.float64), since=0)
    assert pool.nbytes() < 200  # the same memory


def test_a_dtype_of_a_module_that_changes_is_a_change_too():
    layer = ts.nn.Linear(1, 1)
    y = layer(ts.tensor([[2.0]], requires_grad=True)).sum()
    layer.double()
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_setting_data_is_a_change_too():
    x = leaf([1.0])
    y = (x * x).sum()
    x.data = [2.0]
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_an_optimiser_step_between_forward_and_backward_is_noticed():
    x = leaf([1.0])
    y = (x * x).sum()
    x.grad = ts.tensor(np.ones(1))
    ts.optim.SGD([x], lr=0.1).step()
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_reading_data_or_changing_what_no_rule_reads_is_no_error():
    x = leaf([1.0])
    y = x * 2
    z = (y + 1).sum()
    assert x.data[0] == 1.0
    y.data[0] = 7.0  # the gradient of + does not look at it
    z.backward()
    assert x.grad.tolist() == [2.0]


# -- the recording ------------------------------------------------------------------------------


def test_a_recording_keeps_only_what_a_rule_reads():
    x = leaf(np.ones(1000))
    y = x * 2
    z = y + 1
    kept = z.node.inputs[0]
    assert kept.shape == y.shape
    assert graph.identity(kept) == graph.identity(y)
    assert np.isnan(kept.numpy()).all()  # a husk: whoever reads it by mistake cannot miss it
    assert (z * z).node.inputs[0] is z


def test_the_walk_is_in_order_and_meets_each_value_once():
    x = leaf([1.0])
    a = x * 2
    b = a + x
    order = graph.topological(b * a)
    assert [t.node.op.name if t.node else "leaf" for t in order] == [
        "leaf",
        "leaf",
        "mul",
        "add",
        "mul",
    ]


@pytest.mark.unrolled("about the paths of single steps")
def test_scopes_name_module_and_step():
    y, _ = ts.nn.LSTM(2, 3)(ts.tensor(np.ones((2, 1, 2))))
    scopes = {t.node.scope for t in graph.topological(y) if t.node}
    assert ("Stacked", "layers.0", "t=1", "cell") in scopes


def test_an_error_names_module_and_step():
    class Wrong(ts.nn.Module):
        def forward(self, x, state):
            return (x @ ts.tensor(np.ones((5, 1))),)

    with pytest.raises(
        ShapeError, match=r"matmul in Recurrent/t=0/cell: a \(1, 2\) and b \(5, 1\)"
    ):
        ts.nn.Recurrent(Wrong(), mode="unroll")(ts.tensor(np.ones((2, 1, 2))), (ts.tensor([1.0]),))


def test_a_chain_of_100_000_steps():
    """In a process of its own: an overflow of the C stack would take the test run with it."""
    code = """
import tinyseq as ts
x = ts.tensor([1.0], requires_grad=True)
y = x
for _ in range(100_000):
    y = y * 1.00001
y.sum().backward()
assert abs(x.grad.item() - 2.718) < 0.1, x.grad
z = x
for _ in range(100_000):
    z = ts.tanh(z + 0.0)
del z  # freed without a backward pass
print("freed")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "freed", run.stderr


@pytest.mark.unrolled("float64 inputs of float32 parameters run unrolled")
def test_nothing_is_left_for_the_garbage_collector(leaves_no_garbage):
    """No cycles: a recording goes away with its last reference, at once."""

    def work():
        cell = ts.nn.LSTMCell(2, 3)
        y, _ = ts.nn.Recurrent(cell)(ts.tensor(np.ones((3, 1, 2))))
        (y * y).sum().backward(retain_graph=True)

    leaves_no_garbage(work)


# -- gradcheck ----------------------------------------------------------------------------------


@pytest.fixture
def wrong_op():
    @primitive(lambda g, y, x: (g * x,), reads="x")
    def square_with_a_wrong_gradient(x):
        return x * x

    yield square_with_a_wrong_gradient
    del REGISTRY["square_with_a_wrong_gradient"]


def test_gradcheck_finds_a_wrong_gradient(wrong_op):
    with pytest.raises(
        ts.GradcheckError, match=r"input 0 \(speed\) of shape \(2,\) at \[0\] is 1.*say"
    ):
        ts.gradcheck(wrong_op, leaf([1.0, 2.0], name="speed"))


def test_gradcheck_finds_a_wrong_second_gradient():
    @primitive(lambda g, y, x: (g * ts.tensor(2 * x.numpy()),), reads="x")
    def square_with_a_detached_gradient(x):
        return x * x

    del REGISTRY["square_with_a_detached_gradient"]
    x = leaf([1.0, 2.0])
    assert ts.gradcheck(square_with_a_detached_gradient, x)
    with pytest.raises(ts.GradcheckError, match="gradient of the gradient"):
        ts.gradcheck(square_with_a_detached_gradient, x, order=2)


def test_gradcheck_finds_an_undeclared_read():
    """A rule that reads what it did not declare gets NaN, not a number that looks right."""

    @primitive(lambda g, y, x: (g * 2 * x,), reads="")
    def square_that_hides_what_it_reads(x):
        return x * x

    del REGISTRY["square_that_hides_what_it_reads"]
    with pytest.raises(ts.GradcheckError, match="is nan"):
        ts.gradcheck(lambda x: square_that_hides_what_it_reads(x * 1.0), leaf([1.0]))


def test_gradcheck_refuses():
    with pytest.raises(DtypeError, match="must be float64"):
        ts.gradcheck(ts.exp, ts.tensor([1.0], requires_grad=True))
    with pytest.raises(GraphError, match="none of inputs requires"):
        ts.gradcheck(ts.exp, ts.tensor([1.0]))
    with pytest.raises(ValueError, match="order=3"):
        ts.gradcheck(ts.exp, leaf([1.0]), order=3)


# -- import -------------------------------------------------------------------------------------


def test_import_is_light():
    heavy = "'numba', 'graphviz', 'torch', 'matplotlib'"
    code = f"import sys, tinyseq; print([m for m in ({heavy}) if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_tensor_is_looked_at_for_as_long_as_somebody_holds_its_array():
    """Writing once into ``.data`` must not cost a pass over the memory at every later use."""
    w = ts.tensor(np.ones((3, 3)), requires_grad=True)
    w.data[...] = 2
    (w * w).sum().backward()
    assert id(w._data) not in changes.out  # nobody holds it any more
    view = w.data[1]
    y = (w * w).sum()
    view[0] = 9  # a view of it is enough to write
    with pytest.raises(ts.errors.GraphError, match="changed in place"):
        y.backward()
    whole = ts.tensor(np.ones((2, 3)))
    other = whole[0].data[1:]
    assert id(whole._data) in changes.out
    del other
    assert id(whole._data) not in changes.out
