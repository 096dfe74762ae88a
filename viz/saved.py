"""A trained language model from the file that it was saved in, for looking at."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from tinyseq import errors, saving, text
from tinyseq.text.language_model import CELLS


def language_model(path: str | os.PathLike[str]) -> tuple[text.LanguageModel, text.Vocabulary]:
    """The `text.LanguageModel` of characters that a checkpoint holds, and its vocabulary.

    The checkpoint is a dictionary with the model's ``state_dict()`` under ``model`` and the list of
    characters under ``vocabulary``, as demos/shakespeare.py saves it. Sizes and kind of cell follow
    from the names and shapes of the parameters.

    Raises `CheckpointError` for a file without them, `OSError` when it cannot be read.
    """
    saved = saving.load(path)
    state, symbols = saved.get("model"), saved.get("vocabulary")
    if not isinstance(state, Mapping) or not isinstance(symbols, list):
        raise saving.CheckpointError(
            f"{path} holds no language model: a state_dict under 'model' and the list of its "
            "characters under 'vocabulary', as demos/shakespeare.py saves them."
        )
    try:
        model = _fitting({name: np.asarray(value) for name, value in state.items()})
    except (TypeError, ValueError) as error:  # sizes that no model has, or no arrays at all
        raise saving.CheckpointError(f"{path}: 'model': {error}") from error
    if model is None or len(symbols) != model.embedding.num_embeddings:
        raise saving.CheckpointError(
            f"{path}: 'model' is no state of a text.LanguageModel over {len(symbols)} characters. "
            "Load it with the program that wrote it."
        )
    try:
        return model, text.Vocabulary(symbols)
    except (TypeError, ValueError) as error:
        raise saving.CheckpointError(f"{path}: {error}") from error


def _fitting(state: Mapping[str, np.ndarray]) -> text.LanguageModel | None:
    """The model, of whichever kind of cell, whose parameters have these names and shapes."""
    embedding, first = state.get("embedding.weight"), state.get("recurrent.layers.0.cell.w_h")
    if embedding is None or first is None or embedding.ndim != 2 or not first.ndim:
        return None
    layers = sum(name.startswith("recurrent.layers.") and name.endswith(".w_h") for name in state)
    for cell in CELLS:
        model = text.LanguageModel(
            len(embedding), len(first), layers, cell, embedding_size=embedding.shape[1]
        )
        if not errors.misfits(dict(model.named_tensors()), state):
            model.load_state_dict(state)
            return model
    return None
