"""The compiler, compiled: a few cells of every kind, what falls back, what is kept, and threads.

Hundreds of drawn cells run in `compiler_laws.py`, in a process of its own without numba's compiler.
"""

import inspect
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import CodeType

import numpy as np
import pytest
from any_machine import PATIENCE, but_for_compiling
from compiler_cells import (
    BINARY,
    ROWS,
    UNARY,
    WEIGHTS,
    DrawnCell,
    assert_scan_is_unroll,
    filled,
)

import tinyseq as ts
from tinyseq import errors, nn
from tinyseq.compiler import runtime
from tinyseq.errors import CompileError, ShapeError
from tinyseq.kernels import jit, load, threads
from tinyseq.nn import recurrent

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def run(*command, **environment):
    """The output of another Python, that has to succeed."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, but_for_compiling(done.stderr)


# -- scan ≡ unroll --------------------------------------------------------------------------------


def test_the_laws_hold_for_hundreds_of_cells():
    out, _ = run("-m", "pytest", "-n", "0", str(HERE / "compiler_laws.py"), NUMBA_DISABLE_JIT="1")
    assert "failed" not in out


class Grammar(DrawnCell):
    """Those constructs of the grammar in one step that numba could see otherwise than NumPy."""

    kinds = (
        "masks-added masks-multiplied softsign",
        "counted both either sign clip where root power erf cube expm1 log1p softplus abs",
        "norm logsumexp smallest deviation turned halves padded split flat-sum last-column",
        "silu elu leaky-relu tan log2 log10 floor round modulo isnan rolled cumulated length",
        "slices-of-slices backwards-twice thirds strided-twice-over logsumexp-of-nothing",
    )

    def forward(self, x, state):
        h, c = state
        a = x @ self.w_x + h @ self.w
        values = [{**UNARY, **ROWS}[k.replace("-", " ")](a) for k in " ".join(self.kinds).split()]
        values += [f(a, c) for f in BINARY.values()]
        values += [h @ WEIGHTS[k](self) for k in ("slice.T", "product")]
        values.append(self.norm(a) * self.row + self.factor * (a > 0).sum(axis=1, keepdims=True))
        total = values[0]
        for value in values[1:]:
            total = total + 0.1 * value
        return ts.tanh(total), h


COMPILED = {
    "RNN": (lambda: nn.RNNCell(3, 7), {"T": 12, "B": 1, "dtype": np.float64}),
    "LSTM": (lambda: nn.LSTMCell(4, 33), {"T": 5, "B": 3, "lengths": [5, 1, 2], "passes": 2}),
    "GRU before": (lambda: nn.GRUCell(1, 1, "reset_before"), {"T": 4, "B": 5}),
    "zoneout": (
        lambda: nn.LearnedState(nn.Zoneout(nn.GRUCell(3, 100), 0.3)),
        {"T": 6, "B": 5, "given": False},
    ),
    "grammar": (lambda: Grammar(3, 7, [], [("tanh", 0, 0)] * 2), {"T": 3, "B": 2}),
}


@pytest.mark.parametrize("name", sorted(COMPILED))
def test_compiled_is_unrolled(name, monkeypatch):
    make, use = COMPILED[name]
    layer = nn.Recurrent(make(), reverse=name == "zoneout")
    use = {"dtype": np.float32, **use}
    assert_scan_is_unroll(layer, **use)
    monkeypatch.setattr(runtime, "_WORTH_SHARING", 0.0)
    monkeypatch.setattr(runtime, "_ROWS", 4)  # several chunks, and the last one shorter
    before = threads.get_num_threads()
    try:
        for n in (1, 2, 3):
            threads.set_num_threads(n)
            assert_scan_is_unroll(layer, **use)
    finally:
        threads.set_num_threads(before)


# -- golden ---------------------------------------------------------------------------------------

SOURCES = {
    "compiler_lstm": lambda: nn.LSTMCell(3, 4),
    "compiler_gru_before": lambda: nn.GRUCell(3, 4, "reset_before"),
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_the_emitted_source_is_the_one_that_was_read(name):
    """``REGENERATE=1 pytest tests/test_compiler.py -k source`` writes it anew: read the diff."""
    text = nn.Recurrent(SOURCES[name]()).source()
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("REGENERATE"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def emitted(cell):
    """The names of an emitted source: (all that its functions use, those from outside of them)."""
    module = compile(nn.Recurrent(cell.astype(np.float32)).source(), "emitted", "exec")
    functions = [code for code in module.co_consts if isinstance(code, CodeType)]
    outside = {name for code in functions for name in code.co_names}
    return outside | {name for code in functions for name in code.co_varnames}, outside


class Crowded(Grammar):
    def forward(self, x, state):
        h, c = super().forward(x, state)
        for name in self.names:
            h = h * getattr(self, name)
        return h, c


def test_a_parameter_may_be_called_as_anything_in_the_source():
    make = COMPILED["grammar"][0]
    names, outside = emitted(make())
    assert {"tanh", "matmul", "float32", "range", "packed", "w_panels", "total"} <= names
    cell = Crowded(3, 7, [], [("tanh", 0, 0)] * 2)
    cell.names = sorted(name for name in names if not hasattr(cell, name))
    for name in cell.names:
        setattr(cell, name, nn.Parameter(np.ones(7)))
    assert emitted(cell)[1] == outside


# -- what cannot be compiled ----------------------------------------------------------------------


class Written(nn.Module):
    """A cell whose step is a function."""

    input_size = hidden_size = 4

    def __init__(self, step):
        self.step = step
        self.w = nn.Parameter(0.5 * np.eye(4, dtype=np.float32))

    def forward(self, x, state):
        return (self.step(self, x, state[0]),)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.zeros((batch_size, 4), dtype)),)


def branches(cell, x, h):
    return h + x if x.sum() > 0 else h - x


def reads_a_number(cell, x, h):
    return h + x * x[0, 0].item()


def leaves_for_numpy(cell, x, h):
    return x + ts.tensor(h.detach().numpy())


def reads_data(cell, x, h):
    return x + h * float(h.data.max())


def draws(cell, x, h):
    return x + h * np.random.default_rng().random()


def drops(cell, x, h):
    return nn.Dropout(0.5)(x) + h


def norms_the_batch(cell, x, h):
    return h + x - x.mean(axis=0, keepdims=True)


def normalises_the_batch(cell, x, h):
    return h + ts.functional.softmax(x, axis=0)


def compares_sequences(cell, x, h):
    return (x @ h.T) @ x + h


def turns_the_batch(cell, x, h):
    return x[::-1] + h


def attends(cell, x, h):
    return (x[:, :, None] * h[:, None, :]).sum(axis=1)


def cumulates(cell, x, h):
    return ts.cumsum(x, axis=1) + h


def chooses(cell, x, h):
    return x * ts.argmax(x, axis=1)[:, None] + h


def gathers(cell, x, h):
    return x + h[:, [1, 0, 3, 2]]


def looks_up(cell, x, h):
    return x + cell.w[ts.argmax(h, axis=1)]


def sorts(cell, x, h):
    return ts.sort(x) + h


def watches(cell, x, h):
    new = ts.tanh(x + h @ cell.w)
    if new.requires_grad:
        new.register_hook(lambda g: 2 * g)
    return new


def carries_on_in_float64(cell, x, h):
    return (x + h).astype(np.float64)


def computes_in_float64(cell, x, h):
    return (x.astype(np.float64) + h).astype(np.float32)


def divides_by_the_batch_size(cell, x, h):
    return (x + h) / len(x)


def grows(cell, x, h):
    return ts.concat([x, h], axis=1)[:, : x.shape[1] + 1]


def counts(cell, x, h):
    cell.calls = getattr(cell, "calls", 0) + 1
    return x + h


OUTSIDE = ts.tensor(np.ones(4, np.float32), requires_grad=True)


def trains_what_is_not_its_own(cell, x, h):
    return x + h * OUTSIDE


REFUSED = {
    branches: r"if\) reads the value .* ops\.where",
    reads_a_number: r"item\(\).* reads the value .* attributes of the cell",
    leaves_for_numpy: r"numpy\(\) reads the value",
    reads_data: r"\.data reads the value",
    draws: r"changes from call to call\. .* noise\(x, state\)",
    drops: r"draws random numbers.* noise\(x, state\)",
    norms_the_batch: r"batch size, as a mean over the batch",
    normalises_the_batch: r"max of \(B, 4\) mixes the sequences .* reduce the last axis",
    compares_sequences: r"\(2, 2\) for 2 sequences.*Keep axis 0 the batch",
    turns_the_batch: r"slices of the last axis, x\[:, 2:5\]",
    attends: r"getitem makes a tensor of shape \(B, 4, 1\).*parts of the last axis as slices",
    cumulates: r"cumsum has no form .* element-wise ops",
    chooses: r"argmax has no form .* element-wise ops",
    gathers: r"picks single columns.*slices",
    looks_up: r"an index reads the value",
    sorts: r"an index reads the value",
    watches: r"a hook on the result of tanh would not be called",
    carries_on_in_float64: r"makes float64 of float32.*h\.astype\(x\.dtype\)",
    computes_in_float64: r"astype has no form",
    divides_by_the_batch_size: r"batch size",
    grows: r"goes in with the shape \(B, 4\) and comes out with \(B, 5\)",
    counts: r"a step changes calls; .* do it outside of the cell",
    trains_what_is_not_its_own: r"OUTSIDE|made outside.*attribute",
}
WITHOUT_A_LINE = {drops, carries_on_in_float64, grows, counts}


@pytest.fixture
def at_once(monkeypatch):
    """Layers in mode None compile from their first step, and say again what they said before."""
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 0)
    monkeypatch.setattr(errors, "_said", set())


@pytest.mark.parametrize("inner", ["", "inner", "inner.inner"])
def test_what_a_step_adds_is_named_wherever_it_is(inner):
    cell = Written(lambda cell, x, h: counts(cell.module(inner), x, h))
    cell.inner = nn.Module()
    cell.inner.inner, cell.module = nn.Module(), lambda path: dict(cell.named_modules())[path]
    with pytest.raises(CompileError, match=rf"a step changes {inner and inner + '.'}calls;"):
        nn.Recurrent(cell, mode="compiled")(np.ones((3, 3, 4), np.float32))


class Trusting(nn.Module):
    """A cell that checks nothing, and whose noise is what it is told."""

    input_size = hidden_size = 4

    def __init__(self):
        self.w = nn.Parameter(np.eye(4, dtype=np.float32))
        self.factors = np.ones((3, 3, 1), np.float32)

    def initial_state(self, batch_size, dtype):
        return (ts.tensor(np.zeros((batch_size, 4)), dtype),)

    def noise(self, x, state):
        return self.factors

    def forward(self, x, state, noise):
        return (ts.tanh(x * noise + state[0] @ self.w), *state[1:])


WRONG_CALLS = {
    r"the state holds float64; a compiled step carries float32": np.zeros((3, 4)),
    r"the state has shape \(2, 4\).* \(B=3, W\)": np.zeros((2, 4), np.float32),
    r"the state has shape \(3, 4, 2\).* \(B=3, W\)": np.zeros((3, 4, 2), np.float32),
    r"the state has shape \(\).* \(B=3, W\)": np.zeros((), np.float32),
}


@pytest.mark.parametrize("said", WRONG_CALLS)
def test_a_state_that_no_compiled_step_carries(said):
    layer, x = nn.Recurrent(Trusting(), mode="compiled"), np.ones((3, 3, 4), np.float32)
    for _ in range(2):  # before the layer is compiled, and after
        with pytest.raises(
            CompileError, match=rf"Trusting cannot be compiled for this call: {said}"
        ):
            layer(x, (np.zeros((3, 4), np.float32), WRONG_CALLS[said]))
        layer(x)


@pytest.mark.parametrize(
    ("shape", "error", "said"),
    [
        ((3, 1, 1), CompileError, r"for this call: noise.*\(3, 1, 1\).*\(T=3, B=3, …\)"),
        ((3, 2, 1), ShapeError, r"a \(3, 4\) and b \(2, 1\)"),  # as the step says it
        ((2, 3, 1), ShapeError, r"T=3 steps of x, got .*\(2, 3, 1\)"),
    ],
)
def test_noise_that_does_not_fit_belongs_to_its_call(shape, error, said):
    layer, x = nn.Recurrent(Trusting(), mode="compiled"), np.ones((3, 3, 4), np.float32)
    for _ in range(2):
        right, layer.cell.factors = layer.cell.factors, np.ones(shape, np.float32)
        with pytest.raises(error, match=said):
            layer(x)
        layer.cell.factors = right
        layer(x)


@pytest.mark.parametrize("step", REFUSED, ids=lambda f: f.__name__)
def test_what_cannot_be_compiled_says_why_and_runs_unrolled(step, at_once):
    cell = Written(step)
    x = ts.tensor(np.random.default_rng(0).standard_normal((3, 3, 4)).astype(np.float32))
    with pytest.raises(CompileError, match=f"(?s)^Written cannot be compiled: .*{REFUSED[step]}"):
        nn.Recurrent(cell, mode="compiled")(x)
    ts.seed(0)
    try:
        expected = nn.Recurrent(cell, mode="unroll")(x)[0].numpy()
    except ShapeError:  # the state that grows is noticed a step later
        return
    if step is counts:
        del cell.calls
    ts.seed(0)
    with pytest.warns(RuntimeWarning, match=f"(?s){REFUSED[step]}.* It runs unrolled") as said:
        found = nn.Recurrent(cell)(x)[0].numpy()
    if step is not draws:
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(said) == 1
    assert said[0].filename == __file__
    if step not in WITHOUT_A_LINE:
        lines, first = inspect.getsourcelines(step)
        places = {f"test_compiler.py:{first + n}: " for n in range(len(lines))}
        assert any(place in str(said[0].message) for place in places), said[0].message
    if step is not counts:  # its attribute is another one from call to call
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nn.Recurrent(cell)(x)  # once is enough


def raises(cell, x, h):
    raise KeyError("my own")


def misfits(cell, x, h):
    return x @ ts.tensor(np.zeros((5, 4), np.float32)) + h


def returns_an_array(cell, x, h):
    return np.zeros((3, 4))


@pytest.mark.parametrize("mode", ["auto", "compiled"])
def test_errors_of_the_step_itself_come_through(mode, at_once):
    x = ts.tensor(np.ones((3, 3, 4), np.float32))
    with pytest.raises(KeyError, match="my own"):
        nn.Recurrent(Written(raises), mode=mode)(x)
    with pytest.raises(ShapeError, match=r"matmul in .*a \(3, 4\) and b \(5, 4\)"):
        nn.Recurrent(Written(misfits), mode=mode)(x)


def test_a_state_that_is_no_state():
    x = ts.tensor(np.ones((3, 3, 4), np.float32))
    layer = nn.Recurrent(Written(returns_an_array), mode="compiled")
    with pytest.raises(CompileError, match="something that is not a Tensor"):
        layer(x)
    layer.cell.forward = lambda x, state: [x]
    with pytest.raises(TypeError, match=r"the output first, got a list\. .* is written \(h,\)"):
        layer(x)
    layer = nn.Recurrent(nn.GRUCell(4, 2), mode="compiled")
    with pytest.raises(CompileError, match=r"float64 .* Make them the same: cell\.astype"):
        nn.Recurrent(nn.GRUCell(4, 2).double(), mode="compiled")(x)
    with pytest.raises(CompileError, match=r"the state holds float64"):
        layer(x, (ts.tensor(np.zeros((3, 2))),))


def test_mode_none_compiles_when_it_has_run_for_a_while(monkeypatch):
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 40)
    layer = nn.Recurrent(nn.RNNCell(3, 7))
    x = ts.tensor(np.ones((5, 3, 3), np.float32), requires_grad=True)
    ops = [layer(x)[0].node.op.name for _ in range(4)]
    assert ops == ["stack", "stack", "piece", "piece"] or ops == ["concat"] * 2 + ["piece"] * 2
    assert load.kernels is not None


# -- threads --------------------------------------------------------------------------------------


def train(seed):
    """A few steps of training; what comes out."""
    layer = nn.Recurrent(nn.LSTMCell(4, 33, rng=np.random.default_rng(seed)), mode="compiled")
    optimizer = ts.optim.SGD(layer.parameters(), lr=0.1)
    x = filled(ts.tensor(np.zeros((5, 3, 4))), np.random.default_rng(seed), np.float32, False)
    for _ in range(5):
        optimizer.zero_grad()
        y, (_, c) = layer(x)
        ((y - 1.0) ** 2).mean().backward()
        optimizer.step()
    return np.concatenate([p.numpy().ravel() for p in layer.parameters()] + [c.numpy().ravel()])


def test_eight_threads_train_as_one(monkeypatch):
    monkeypatch.setattr(runtime, "_WORTH_SHARING", 0.0)  # all of them want the helpers
    expected = [train(seed) for seed in range(8)]
    found = {}

    def work(seed):
        found[seed] = train(seed)

    team = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for t in team:
        t.start()
    for t in team:
        t.join()
    for seed in range(8):
        np.testing.assert_allclose(found[seed], expected[seed], rtol=1e-4, atol=1e-5)


def _trained_in_a_child(queue):
    runtime._WORTH_SHARING = 0.0
    queue.put(train(3))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads
def test_a_forked_child_trains_too(monkeypatch):
    monkeypatch.setattr(runtime, "_WORTH_SHARING", 0.0)
    expected = train(3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_trained_in_a_child, args=(queue,))
    child.start()
    found = queue.get(timeout=PATIENCE)
    child.join(PATIENCE)
    assert child.exitcode == 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_set_num_threads_wants_a_number(n):
    with pytest.raises((TypeError, ValueError), match=r"n=.* must be a whole number, at least 1"):
        ts.set_num_threads(n)


# -- what is kept on disk -------------------------------------------------------------------------

STEP = """
import numpy as np, tinyseq as ts
from tinyseq import nn
layer = nn.Recurrent(nn.RNNCell(2, 3, rng=np.random.default_rng(0)), mode="compiled")
y, _ = layer(ts.tensor(np.ones((3, 2, 2), np.float32)))
y.sum().backward()
print(sum(float(p.grad.sum()) for p in layer.parameters()))
"""


def kept(folder):
    """Every file of compiled code, and when it was written."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """Two processes at once on an empty folder: both must find their way."""
    folder = tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-c", STEP]
    environment = {**os.environ, "TINYSEQ_CACHE_DIR": str(folder)}
    racing = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=PATIENCE)[0] for process in racing]
    assert [process.returncode for process in racing] == [0, 0]
    assert outs[0] == outs[1] != ""
    return folder, outs[0]


def test_the_second_process_compiles_nothing(cold):
    folder, expected = cold
    before = kept(folder)
    assert before
    assert run("-c", STEP, TINYSEQ_CACHE_DIR=str(folder)) == (expected, "")
    assert kept(folder) == before


def test_files_that_were_cut_off_are_written_again(cold):
    folder, expected = cold
    for n, path in enumerate(sorted(kept(folder))):
        os.truncate(path, 0 if n % 2 else 100)
    assert run("-c", STEP, TINYSEQ_CACHE_DIR=str(folder))[0] == expected
    before = kept(folder)
    assert min(p.stat().st_size for p in before) > 100
    assert any("RNNCell" in p.name and ".backward" in p.name for p in before)
    assert run("-c", STEP, TINYSEQ_CACHE_DIR=str(folder)) == (expected, "")
    assert kept(folder) == before


def test_damaged_files_are_written_again(cold):
    """Bits flipped in every file with machine code: it is never executed."""
    folder, expected = cold
    rng = np.random.default_rng(0)
    damaged = {p: t for p, t in kept(folder).items() if p.stat().st_size > 5000}
    assert len(damaged) > 5
    for n, path in enumerate(damaged):
        contents = np.fromfile(path, np.uint8)
        for at in rng.integers(contents.size, size=(1, 3, 1000)[n % 3]):
            contents[at] ^= 1 << int(rng.integers(8))
        contents.tofile(path)
    damaged = kept(folder)
    assert run("-c", STEP, TINYSEQ_CACHE_DIR=str(folder))[0] == expected
    before = kept(folder)
    assert all(before[p] != damaged[p] for p in damaged if p.stat().st_size > 5000)
    assert run("-c", STEP, TINYSEQ_CACHE_DIR=str(folder)) == (expected, "")
    assert kept(folder) == before


def test_a_file_of_another_function_is_not_taken(cold):
    """Every signature has a file of its own, whoever wrote first."""
    folder, _ = cold
    assert len({p.read_bytes() for p in kept(folder)}) == len(kept(folder))


def test_without_a_folder_it_is_said_once(cold):
    _, expected = cold
    out, said = run("-c", STEP, TINYSEQ_CACHE_DIR=os.path.join(os.devnull, "x"))
    assert out == expected
    assert said.count("cannot keep compiled code") == 1
    assert "TINYSEQ_CACHE_DIR" in said


def test_other_kernels_have_another_folder(monkeypatch, tmp_path):
    before = jit._fingerprint()
    assert jit._fingerprint() == before
    monkeypatch.setattr(jit.numba, "__version__", "0.0")
    assert jit._fingerprint() != before
    monkeypatch.undo()
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    (tmp_path / "gemm.py").write_text("ROWS = 14")
    changed = jit._fingerprint()
    assert changed != before
    (tmp_path / "gemm.py").write_text("ROWS = 13")
    assert jit._fingerprint() != changed


def test_a_lost_folder_costs_the_cache_alone(monkeypatch, tmp_path, capsys):
    text = '"""step"""\n\n\ndef forward(n):\n    return n + 1\n'
    monkeypatch.setattr(runtime, "_SILENT", 0.0)
    for where, end in ((tmp_path / "gone" / "gone", True), (Path(os.devnull) / "x", False)):
        monkeypatch.setattr(jit, "folder", lambda where=where: where)
        text = text.replace("+ 1", "+ 1 + 1")
        forward = runtime.load("Lost", text)["forward"]
        with runtime.said("Lost", "forward", forward):
            assert forward(1) == 1 + text.count("+ 1")
            time.sleep(0.1)
        said = capsys.readouterr().err
        assert "compiling Lost (forward)" in said
        assert ("it is kept for the next time" in said) is end
        assert ("it could not be kept" in said) is not end
        assert len(list(where.glob("tinyseq_Lost_*"))) == end


def test_what_is_compiled_at_once_is_not_spoken_of(monkeypatch, capsys):
    monkeypatch.setattr(runtime, "_SILENT", 0.2)
    with runtime.said("Quick", "forward", None):
        pass
    time.sleep(0.4)
    assert capsys.readouterr().err == ""
