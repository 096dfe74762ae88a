"""Text in, text out: characters as numbers, chunks to train on, a model of them, its samples."""

from tinyseq.text.corpus import (
    Speech,
    names,
    pronunciations,
    shakespeare,
    speeches,
    tiny_shakespeare,
)
from tinyseq.text.language_model import LanguageModel, sample, score
from tinyseq.text.partition import Partition, split
from tinyseq.text.tokenize import Characters, Words, sentences
from tinyseq.text.vocabulary import Vocabulary

__all__ = [
    "Characters",
    "LanguageModel",
    "Partition",
    "Speech",
    "Vocabulary",
    "Words",
    "names",
    "pronunciations",
    "sample",
    "score",
    "sentences",
    "shakespeare",
    "speeches",
    "split",
    "tiny_shakespeare",
]
