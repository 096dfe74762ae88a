"""Right calls of text."""

import numpy as np

from tinyseq import text

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ROW = np.array([0, 1, 2, 1, 0, 2])


def vocabulary():
    return text.Vocabulary(LETTERS)


def model(**given):
    return text.LanguageModel(len(LETTERS), 2, 1, "rnn", mode="unroll", **given)


def ngram():
    return text.NGram(2, len(LETTERS)).fit(ROW)


def of_model(method, **given):
    return getattr(model(), method), given


def of_ngram(method, **given):
    return getattr(ngram(), method), given


def writes(**given):
    return {"model": model(), "vocabulary": vocabulary(), "length": 2, **given}


def state(texts):
    return model().initial_state(texts)


RNG = np.random.default_rng(0)
CHOICE = {"temperature": 1.0, "top_k": 2, "top_p": 0.9, "allow_unknown": True, "start": True}

CALLS = {
    # -- vocabularies and tokens
    "text.Vocabulary": lambda: (text.Vocabulary, {"symbols": "to be"}),
    "text.Vocabulary.from_counts": lambda: (
        text.Vocabulary.from_counts,
        {
            "tokens": {"to": 2, "be": 1},
            "size": 5,
            "min_count": 1,
            "unk": "<UNK>",
            "eos": "<EOS>",
            "pad": None,
            "bos": "<BOS>",
        },
    ),
    "text.Vocabulary.encode": lambda: (vocabulary().encode, {"text": "to"}),
    "text.Vocabulary.decode": lambda: (vocabulary().decode, {"indices": [1, 2]}),
    "text.Vocabulary.symbols_of": lambda: (vocabulary().symbols_of, {"indices": [1, 2]}),
    "text.Vocabulary.save": lambda: (vocabulary().save, {"path": "v.json"}),
    "text.Vocabulary.from_json": lambda: (
        text.Vocabulary.from_json,
        {"source": vocabulary().to_json()},
    ),
    "text.Characters.split": lambda: (text.Characters().split, {"text": "to be"}),
    "text.Characters.join": lambda: (text.Characters().join, {"tokens": ["t", "o"]}),
    "text.Words": lambda: (text.Words, {"pattern": r"\w+", "keep_spaces": True}),
    "text.Words (punctuation)": lambda: (text.Words, {"punctuation": True}),
    "text.Words.split": lambda: (text.Words().split, {"text": "to be"}),
    "text.Words.join": lambda: (text.Words().join, {"tokens": ["to", " be"]}),
    "text.sentences": lambda: (text.sentences, {"text": "To be. Not to be."}),
    # -- chunks and batches
    "text.split": lambda: (text.split, {"indices": ROW, "held_out": 0.5}),
    "text.Partition": lambda: (
        text.Partition,
        {"indices": ROW, "batch_size": 2, "steps": 2, "shard": (1, 2)},
    ),
    "text.Partition[]": lambda: (text.Partition(ROW, 2, 2).__getitem__, {"i": 0}),
    "text.RandomOffsets": lambda: (
        text.RandomOffsets,
        {"indices": ROW, "batch_size": 1, "steps": 2, "seed": 0, "shard": (0, 1)},
    ),
    "text.Windows": lambda: (
        text.Windows,
        {
            "indices": ROW,
            "batch_size": 2,
            "steps": 2,
            "stride": 1,
            "pad": 0,
            "seed": 0,
            "shard": (1, 2),
        },
    ),
    "text.Windows.epoch": lambda: (text.Windows(ROW, 2, 2).epoch, {"number": 1}),
    "text.Windows[]": lambda: (text.Windows(ROW, 2, 2).__getitem__, {"i": 0}),
    "text.padded": lambda: (text.padded, {"sequences": [[1, 2], [3]], "value": 0}),
    "text.Buckets": lambda: (
        text.Buckets,
        {"lengths": [2, 1], "batch_size": 1, "seed": 0, "shard": (0, 1)},
    ),
    "text.Batches": lambda: (
        text.Batches,
        {
            "sequences": [[1, 2], [3, 4, 5]],
            "batch_size": 1,
            "targets": [0, 1],
            "bucketed": True,
            "pad": 0,
            "seed": 0,
            "shard": (0, 1),
        },
    ),
    # -- models
    "text.NGram": lambda: (
        text.NGram,
        {"n": 2, "vocabulary_size": 3, "smoothing": "add-k", "k": 0.1, "start": 0},
    ),
    "text.NGram.fit": lambda: (text.NGram(2).fit, {"indices": ROW}),
    "text.NGram.log_probability": lambda: of_ngram("log_probability", indices=[1], context=[0]),
    "text.NGram.score": lambda: of_ngram("score", indices=[1, 2], context=[0]),
    "text.NGram.perplexity": lambda: of_ngram(
        "perplexity", sequences=["to", "be"], context="or", vocabulary=vocabulary()
    ),
    "text.NGram.counts": lambda: of_ngram("counts", n=2, vocabulary=vocabulary()),
    "text.NGram.log_probabilities": lambda: of_ngram("log_probabilities", prefix=[1], context=[0]),
    "text.NGram.log_probabilities_of": lambda: of_ngram(
        "log_probabilities_of", sentences=[ROW, [1]]
    ),
    "text.NGram.sample": lambda: of_ngram("sample", length=2, prime=[0], rng=RNG, temperature=1.0),
    "text.LanguageModel": lambda: (
        text.LanguageModel,
        {
            "vocabulary_size": 3,
            "hidden_size": 2,
            "num_layers": 1,
            "cell": "gru",
            "embedding_size": 2,
            "dropout": 0.1,
            "mode": "unroll",
        },
    ),
    "text.LanguageModel()": lambda: (model(), {"indices": ROW[:, None], "state": None}),
    "text.LanguageModel.initial_state": lambda: of_model(
        "initial_state", batch_size=2, dtype=np.float32
    ),
    "text.LanguageModel.log_probability": lambda: of_model("log_probability", indices=ROW),
    "text.LanguageModel.log_probabilities_of": lambda: of_model(
        "log_probabilities_of", sentences=[ROW, [1]]
    ),
    "text.LanguageModel.perplexity": lambda: of_model(
        "perplexity", sequences=["to", "be"], context="or", vocabulary=vocabulary()
    ),
    "text.perplexity": lambda: (text.perplexity, {"probabilities": [0.5, 0.25]}),
    "text.LanguageModel.log_probabilities": lambda: of_model("log_probabilities", prefix=[1]),
    "text.score": lambda: (
        text.score,
        {"model": model(), "indices": ROW, "tracks": 2, "context": 1, "steps": 2, "shard": (0, 2)},
    ),
    "text.rank": lambda: (
        text.rank,
        {
            "model": model(),
            "vocabulary": vocabulary(),
            "candidates": ["to", "be"],
            "by": "per_symbol",
        },
    ),
    "text.likeliest": lambda: (
        text.likeliest,
        {"model": ngram(), "vocabulary": vocabulary(), "prefix": "to", "k": 2},
    ),
    # -- writing
    "text.generate": lambda: (
        text.generate,
        writes(prime="to", rng=RNG, mode="unroll", beam_width=None, state=state(1), **CHOICE),
    ),
    "text.generate (a beam)": lambda: (text.generate, writes(prime="to", beam_width=2)),
    "text.generate_batch": lambda: (
        text.generate_batch,
        writes(primes=["to", "b"], rng=RNG, mode="unroll", state=state(2), **CHOICE),
    ),
    "text.sample": lambda: (
        text.sample,
        writes(prime="to", temperature=0.5, rng=RNG, mode="unroll"),
    ),
    "text.beam_search": lambda: (
        text.beam_search,
        writes(
            prime="to", width=2, length_penalty=0.5, allow_unknown=True, start=True, state=state(1)
        ),
    ),
}

LEFT_OUT = {
    "text.Characters": "takes nothing",
    "text.names": "takes nothing",
    "text.pronunciations": "takes True or False, and a second to read the dictionary",
    "text.shakespeare": "takes nothing",
    "text.speeches": "takes nothing",
    "text.tiny_shakespeare": "downloads",
    "text.Speech": "a NamedTuple that the library fills",
    "text.Ranked": "a NamedTuple that the library fills",
}
