"""Text in, text out: characters as numbers, chunks to train on, a model of them, its samples."""

from tinyseq.text.corpus import shakespeare, tiny_shakespeare
from tinyseq.text.language_model import LanguageModel, sample, score
from tinyseq.text.ngram import NGram
from tinyseq.text.partition import Partition, split
from tinyseq.text.vocabulary import Vocabulary

__all__ = [
    "LanguageModel",
    "NGram",
    "Partition",
    "Vocabulary",
    "sample",
    "score",
    "shakespeare",
    "split",
    "tiny_shakespeare",
]
