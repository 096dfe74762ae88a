"""Text in, text out: characters as numbers, chunks to train on, a model of them, its samples."""

from tinyseq.text import corpus, generation, language_model, partition
from tinyseq.text.batches import Batches, Buckets, padded
from tinyseq.text.corpus import *
from tinyseq.text.generation import *
from tinyseq.text.language_model import *
from tinyseq.text.measures import perplexity
from tinyseq.text.ngram import NGram
from tinyseq.text.partition import *
from tinyseq.text.tokenize import Characters, Words, sentences
from tinyseq.text.vocabulary import Vocabulary
from tinyseq.text.word_lists import names, pronunciations

__all__ = [
    "Batches", "Buckets", "Characters", "NGram", "Vocabulary", "Words", "names", "padded",
    "perplexity", "pronunciations", "sentences",
]  # fmt: skip
__all__ += [*corpus.__all__, *generation.__all__, *language_model.__all__, *partition.__all__]
