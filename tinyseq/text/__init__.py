"""Text in, text out: characters as numbers, chunks to train on, a model of them, its samples."""

from tinyseq.text.batches import Batches, Buckets, padded
from tinyseq.text.corpus import Speech, shakespeare, speeches, tiny_shakespeare
from tinyseq.text.language_model import LanguageModel, sample, score
from tinyseq.text.ngram import NGram
from tinyseq.text.partition import Partition, RandomOffsets, Windows, split
from tinyseq.text.tokenize import Characters, Words, sentences
from tinyseq.text.vocabulary import Vocabulary
from tinyseq.text.word_lists import names, pronunciations

__all__ = [
    "Batches",
    "Buckets",
    "Characters",
    "LanguageModel",
    "NGram",
    "Partition",
    "RandomOffsets",
    "Speech",
    "Vocabulary",
    "Windows",
    "Words",
    "names",
    "padded",
    "pronunciations",
    "sample",
    "score",
    "sentences",
    "shakespeare",
    "speeches",
    "split",
    "tiny_shakespeare",
]
