"""Text in, text out: characters as numbers, chunks to train on, a model of them, its samples."""

from tinyseq.text.batches import Batches, Buckets, padded
from tinyseq.text.corpus import Speech, shakespeare, speeches, tiny_shakespeare
from tinyseq.text.generation import beam_search, generate, generate_batch, sample
from tinyseq.text.language_model import START, LanguageModel, Ranked, likeliest, rank, score
from tinyseq.text.ngram import NGram
from tinyseq.text.partition import Partition, RandomOffsets, Windows, split
from tinyseq.text.tokenize import Characters, Words, sentences
from tinyseq.text.vocabulary import Vocabulary
from tinyseq.text.word_lists import names, pronunciations

__all__ = [
    "START",
    "Batches",
    "Buckets",
    "Characters",
    "LanguageModel",
    "NGram",
    "Partition",
    "RandomOffsets",
    "Ranked",
    "Speech",
    "Vocabulary",
    "Windows",
    "Words",
    "beam_search",
    "generate",
    "generate_batch",
    "likeliest",
    "names",
    "padded",
    "pronunciations",
    "rank",
    "sample",
    "score",
    "sentences",
    "shakespeare",
    "speeches",
    "split",
    "tiny_shakespeare",
]
