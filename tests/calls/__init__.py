"""A right call of every public function, constructor and method: `test_arguments` spoils them."""

from calls import engine, layers, pictures, texts, training

CALLS = {**engine.CALLS, **layers.CALLS, **training.CALLS, **texts.CALLS, **pictures.CALLS}
LEFT_OUT = {
    **engine.LEFT_OUT,
    **layers.LEFT_OUT,
    **training.LEFT_OUT,
    **texts.LEFT_OUT,
    **pictures.LEFT_OUT,
}
