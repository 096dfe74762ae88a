"""What takes several things takes them from what can be read only once, too, or refuses that:
never half of them, and never none.
"""

import inspect
import re

import numpy as np
import pytest
from calls.training import Alone

import tinyseq as ts
from tinyseq import functional, gradcheck, nn, optim, random, saving, text, viz
from tinyseq.errors import GraphError
from tinyseq.nn import attention, interop, onnx, reservoir, seq2seq

LETTERS = text.Vocabulary("abc ")
WORDS = text.Vocabulary.from_counts(["a", "b", "c"])
NAMES = ["a", "b", "c", "b"]
ONES = ts.tensor(np.ones((2, 3, 4)))


def leaf(*values):
    return ts.tensor(np.array(values), requires_grad=True)


def trained(make):
    """What an optimiser over some parameters does to them."""

    def call(several):
        ps = [nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])]
        for p in ps:
            p.grad = ts.tensor(np.ones(p.shape, np.float32))
        optimizer = make(several(ps))
        optimizer.step()
        return [p.tolist() for p in ps], [p.grad.tolist() for p in ps]

    return call


def clipped(clip):
    def call(several):
        ps = [nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])]
        for p in ps:
            p.grad = ts.tensor(np.full(p.shape, 7.0, np.float32))
        return clip(several(ps), 1.0), [p.grad.tolist() for p in ps]

    return call


def averaged(several):
    ps = [nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])]
    for p in ps:
        p.grad = ts.tensor(np.full(p.shape, 7.0, np.float32))
    return optim.average_gradients(several(ps), Alone(), 3, 0.5), [p.grad.tolist() for p in ps]


def gradients(several):
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    both = ts.grad(several([(x * y).sum(), x.sum()]), several([x, y]))
    weighed = ts.grad(several([x * y, x]), several([x, y]), several([x.detach(), None]))
    return [g.tolist() for g in both + weighed] if weighed else None


def gradients_of_elements(several):
    x, y = leaf(1.0), leaf(3.0)
    return [
        g.tolist() for g in ts.grad(several([x * y, x]), several([x, y]), several([None, None]))
    ]


def product_with_hessian(several):
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    out = ts.hvp(lambda a, b: (a * a * b).sum(), several([x, y]), several([x.detach(), y.detach()]))
    return [v.tolist() for v in out]


def language_model():
    ts.seed(0)
    return text.LanguageModel(len(WORDS), 4)


def written(several):
    ts.seed(1)
    return text.generate_batch(language_model(), WORDS, several([several(NAMES[:2]), ["a"]]), 3)


def stacked(several):
    layer = nn.LSTM(1, 2, 2)
    x = np.ones((1, 1, 1), np.float32)
    _, state = layer(x)
    return layer(x, several(state))[0].shape


def batches(several):
    sequences = [np.array([1, 2]), np.array([3]), np.array([4, 5, 6])]
    found = text.Batches(several(sequences), 2, several([0, 1, 0]))
    return [[np.asarray(part).tolist() for part in batch] for batch in found]


#: Every public function, with what it gives for several things in a list, or in what may be another
#: kind of several.
CALLS = {
    "Adagrad": trained(lambda ps: optim.Adagrad(ps)),
    "Adam": trained(lambda ps: optim.Adam(ps)),
    "AdamW": trained(lambda ps: optim.AdamW(ps)),
    "NAdam": trained(lambda ps: optim.NAdam(ps)),
    "RMSprop": trained(lambda ps: optim.RMSprop(ps)),
    "SGD": trained(lambda ps: optim.SGD(ps, 0.5)),
    "Optimizer": lambda several: len(optim.Optimizer(several([leaf(1.0)]), 0.1).params),
    "Adam.betas": lambda several: optim.Adam([leaf(1.0)], betas=several([0.5, 0.6])).betas,
    "clip_grad_norm": clipped(optim.clip_grad_norm),
    "clip_grad_norm_each": clipped(optim.clip_grad_norm_each),
    "clip_grad_value": clipped(optim.clip_grad_value),
    "average_gradients": averaged,
    "check_equal": lambda several: optim.check_equal(several([leaf(1.0), leaf(2.0)]), Alone()),
    "grad": gradients_of_elements,
    "hvp": product_with_hessian,
    "gradcheck": lambda several: gradcheck(
        lambda a, b: several([a * b, a]), several([leaf(1.0), leaf(2.0)])
    ),
    "concat": lambda several: ts.concat(several([leaf(1.0), leaf(2.0)])).tolist(),
    "stack": lambda several: ts.stack(several([leaf(1.0), leaf(2.0)])).tolist(),
    "hstack": lambda several: ts.hstack(several([leaf(1.0), leaf(2.0)])).tolist(),
    "vstack": lambda several: ts.vstack(several([leaf(1.0), leaf(2.0)])).tolist(),
    "view": lambda several: ONES[:, :, 0].view(several([3, 2])).shape,
    "tile": lambda several: leaf(1.0, 2.0).tile(several([2, 3])).shape,
    "roll": lambda several: ts.roll(
        leaf([1.0, 2.0], [3.0, 4.0]), several([1, 1]), several([0, 1])
    ).tolist(),
    "tensordot": lambda several: ts.tensordot(ONES, ONES, several([[0, 1], [0, 1]])).shape,
    "split": lambda several: [t.tolist() for t in ts.split(leaf(1.0, 2.0, 3.0), several([1, 2]))],
    "axes": lambda several: ts.sum(ONES, several([0, 2])).tolist(),
    "shape": lambda several: ONES[:, :, 0].reshape(several([3, 2])).shape,
    "transpose": lambda several: ONES.transpose(several([2, 0, 1])).shape,
    "permute": lambda several: ONES.permute(several([2, 0, 1])).shape,
    "expand": lambda several: ONES[:1, :, 0].expand(several([2, 3])).shape,
    "broadcast_to": lambda several: ts.broadcast_to(ONES[:1, :, 0], several([2, 3])).shape,
    "squeeze": lambda several: ts.squeeze(ONES[:1, :, :1], several([0, 2])).shape,
    "flip": lambda several: ts.flip(leaf([1.0, 2.0], [3.0, 4.0]), several([0, 1])).tolist(),
    "pad": lambda several: ts.pad(leaf(1.0), several([1, 2])).tolist(),
    "index": lambda several: leaf(1.0, 2.0, 3.0)[several([0, 2])].tolist(),
    "tensor": lambda several: ts.tensor(several([1.0, 2.0])).tolist(),
    "one_hot": lambda several: functional.one_hot(several([1, 0]), 2).tolist(),
    "lengths": lambda several: (
        nn.GRU(1, 2)(np.ones((3, 2, 1), np.float32), lengths=several([1, 3]))[0].shape
    ),
    "Stacked": stacked,
    "LearnedState": lambda several: nn.LearnedState(
        nn.LSTMCell(1, 2), several([[1.0, 2.0], [3.0, 4.0]])
    ).c0.tolist(),
    "Batches": batches,
    "Vocabulary": lambda several: text.Vocabulary(several(NAMES)).symbols,
    "from_counts": lambda several: text.Vocabulary.from_counts(several(NAMES)).symbols,
    "encode": lambda several: WORDS.encode(several(NAMES)).tolist(),
    "decode": lambda several: WORDS.decode(several([2, 3])),
    "symbols_of": lambda several: WORDS.symbols_of(several([2, 3])),
    "Words.join": lambda several: text.Words().join(several(["a", "b"])),
    "Characters.join": lambda several: text.Characters().join(several(["a", "b"])),
    "padded": lambda several: [a.tolist() for a in text.padded(several([[1, 2], [3]]))],
    "Buckets": lambda several: [b.tolist() for b in text.Buckets(several([3, 1, 2]), 2)],
    "NGram": lambda several: text.NGram(2, 5).fit(several([1, 2, 1, 3])).score(several([1, 2])),
    "generate": lambda several: list(
        text.generate(language_model(), WORDS, several(NAMES), 3, temperature=0)
    ),
    "generate_batch": written,
    "beam_search": lambda several: text.beam_search(language_model(), WORDS, several(NAMES), 2, 3),
    "likeliest": lambda several: text.likeliest(language_model(), WORDS, several(NAMES), 2),
    "rank": lambda several: text.rank(
        language_model(), WORDS, several([several(["a", "b"]), ["c"]])
    ),
    "perplexity": lambda several: [
        model.perplexity(several(rows), several(context), vocabulary=WORDS)
        for model in (language_model(), text.NGram(2, 5).fit([1, 2, 1, 3, 4, 2]))
        for context in ([3], ["a"])
        for rows in ([[2, 3, 2], [3, 4]], [2, 3], NAMES, [several(NAMES), several([2, 3])])
    ],
    "text.perplexity": lambda several: text.perplexity(several([0.5, 0.25])),
    "NGram.log_probabilities_of": lambda several: (
        text.NGram(2, 5).fit([1, 2, 1, 3]).log_probabilities_of(several([[2, 3], [3]])).tolist()
    ),
    "log_probabilities_of": lambda several: (
        language_model().log_probabilities_of(several([[2, 3], [3, 4]])).tolist()
    ),
    "draw": lambda several: str(viz.draw(several([leaf(1.0) * 2, leaf(2.0) + 1]))).count("label"),
    "draw_unrolled": lambda several: str(
        viz.draw_unrolled(nn.GRU(1, 2), columns=several([0, 2]))
    ).count("label"),
    "colour_text": lambda several: (
        viz.colour_text(language_model(), WORDS, several(NAMES), 0).symbols
    ),
    "find_units": lambda several: len(
        viz.find_units(language_model(), WORDS, several(NAMES * 125), np.arange(500.0) % 7)
    ),
    "heatmap units": lambda several: (
        next(iter(viz.heatmap(np.ones((3, 4)), units=several([0, 2])).data.values())).shape
    ),
    "heatmap symbols": lambda several: len(
        viz.heatmap(np.ones((3, 4)), symbols=several(["a", "b", "c"])).axes
    ),
    "heatmap names": lambda several: sorted(
        viz.heatmap(
            viz.record(nn.LSTM(1, 2), np.ones((3, 1, 1), np.float32)), several(["h", "c"])
        ).data
    ),
}


def once(values):
    return (value for value in values)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [once, iter, tuple])
def test_the_same_comes_of_a_list_and_of_any_other_iterable_or_it_is_refused(name, kind):
    try:
        given = CALLS[name](kind)
    except (TypeError, ValueError, IndexError) as error:
        refused = str(error)
    else:
        assert repr(given) == repr(CALLS[name](list))
        return
    assert re.search(r"\b(list|tuple|arrays?|integers|numbers?|string|Tensors)\b", refused)
    assert not re.search(r"has no len|not subscriptable|no attribute", refused)


PARAMETERS = ["Adagrad", "Adam", "AdamW", "RMSprop", "SGD", "Optimizer", "clip_grad_norm",
              "clip_grad_norm_each", "clip_grad_value", "grad", "hvp", "gradcheck"]  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_generator_that_was_read_before_is_no_list_of_no_parameters(name):
    def used_up(values):
        generator = once(values)
        assert list(generator)
        return generator

    with pytest.raises(
        (ValueError, GraphError), match=r"no (parameters|xs|y)\b|read only once|no input"
    ):
        CALLS[name](used_up)


@pytest.mark.parametrize(
    "clip", [optim.clip_grad_norm, optim.clip_grad_norm_each, optim.clip_grad_value]
)
def test_clipping_refuses_what_it_would_clip_nothing_or_twice_of(clip):
    p = nn.Parameter([3.0])
    p.grad = ts.tensor([4.0])
    for params, error, words in (
        (p, TypeError, r"params=.* must be a series of Tensors"),
        ([p, p], ValueError, "given twice"),
        (nn.Linear(1, 1), TypeError, r"params=Linear.* must be a series of Tensors"),
        ({"p": p}, TypeError, r"params=.* must be a series of Tensors"),
        ([("p", p)], TypeError, r"params=.* must be a series of Tensors"),
        ([], ValueError, "params holds no parameters"),
    ):
        with pytest.raises(error, match=words):
            clip(params, 1.0)
    assert p.grad.tolist() == [4.0]


def test_one_variable_serves_the_optimiser_and_the_clipping():
    model = nn.Linear(2, 1)
    ps, named = model.parameters(), model.named_parameters()
    optimizer = optim.SGD(ps)
    (model(np.ones((1, 2), np.float32)) * 100).sum().backward()
    assert optim.clip_grad_norm(ps, 1.0) > 100
    assert sum(float((p.grad * p.grad).sum()) for p in ps) == pytest.approx(1.0)
    assert list(map(id, ps)) == list(map(id, optimizer.params)) == [id(p) for _, p in named]


def public():
    """Every public function and method, by name."""
    homes = {"ts": ts, "nn": nn, "optim": optim, "functional": functional, "text": text, "viz": viz,
             "saving": saving, "random": random, "attention": attention, "interop": interop,
             "onnx": onnx, "reservoir": reservoir, "seq2seq": seq2seq}  # fmt: skip
    for home, module in homes.items():
        for name in dir(module):
            thing = getattr(module, name)
            if name.startswith("_") or not getattr(thing, "__module__", "").startswith("tinyseq"):
                continue
            if inspect.isclass(thing):
                for method, f in vars(thing).items():
                    f = getattr(f, "__func__", f)
                    if inspect.isfunction(f) and (method == "__init__" or method[0] != "_"):
                        yield name if method == "__init__" else f"{name}.{method}", f
            elif inspect.isfunction(thing):
                yield f"{home}.{name}", thing


#: Parameters of public functions that take several things, by what holds them above.
HELD = {
    "NAdam.params", "ts.hstack.xs", "ts.vstack.xs", "Tensor.view.shape", "Tensor.tile.reps",
    "ts.tensordot.axes", "Tensor.roll.shift", "optim.average_gradients.params",
    "optim.check_equal.params",
    "Adagrad.params", "Adam.params", "AdamW.params", "RMSprop.params", "SGD.params",
    "Optimizer.params", "ts.concat.xs", "ts.stack.xs", "ts.split.indices_or_sections",
    "ts.gradcheck.inputs", "ts.hvp.xs", "ts.hvp.vs", "Tensor.reshape.shape",
    "Tensor.transpose.axes", "Tensor.permute.axes", "Tensor.expand.shape", "Stacked.forward.state",
    "LearnedState.state", "Batches.sequences", "Batches.targets", "Vocabulary.symbols",
    "Vocabulary.from_counts.tokens", "Vocabulary.encode.text", "Vocabulary.decode.indices",
    "Vocabulary.symbols_of.indices", "Words.join.tokens", "Characters.join.tokens",
    "text.padded.sequences", "text.generate.prime", "text.generate_batch.primes",
    "text.beam_search.prime", "text.likeliest.prefix", "text.rank.candidates",
    "LanguageModel.log_probabilities_of.sentences", "LanguageModel.perplexity.sequences",
    "LanguageModel.perplexity.context", "NGram.perplexity.sequences", "NGram.perplexity.context",
    "NGram.log_probabilities_of.sentences", "text.perplexity.probabilities",
    "viz.draw.tensor", "viz.draw_unrolled.columns", "viz.colour_text.text", "viz.find_units.text",
    "viz.heatmap.names", "viz.heatmap.units", "viz.heatmap.symbols", "optim.clip_grad_norm.params",
    "optim.clip_grad_norm_each.params", "optim.clip_grad_value.params", "ts.grad.y",
    "ts.grad.xs", "ts.grad.grad_outputs", "text.sample.prime", "Tensor.unsqueeze.axis",
}  # fmt: skip
#: And those that are told apart from one thing by being a list or a tuple, or are made by the
#: library itself.
OTHERS = {
    "viz.draw_unrolled.what", "viz.page.what", "Units.units", "onnx.export.layers",
    "RecurrentDropout.p", "ts.gradcheck.fn",
}  # fmt: skip


def test_every_public_function_of_several_things_is_held():
    takes = set()
    for name, f in public():
        for parameter, annotation in inspect.unwrap(f).__annotations__.items():
            if parameter != "return" and re.search(
                r"\b(Iterable|Sequence|Collection|list|set)\[", str(annotation).split("Callable")[0]
            ):
                takes.add(f"{name}.{parameter}")
    assert takes - OTHERS == HELD
