"""Every public function, constructor and method, and a right call of each: `test_arguments` spoils
them.
"""

import inspect

import tinyseq as ts
from calls import engine, layers, pictures, texts, training
from tinyseq import functional, nn, optim, text, viz

CALLS = {**engine.CALLS, **layers.CALLS, **training.CALLS, **texts.CALLS, **pictures.CALLS}
LEFT_OUT = {
    **engine.LEFT_OUT,
    **layers.LEFT_OUT,
    **training.LEFT_OUT,
    **texts.LEFT_OUT,
    **pictures.LEFT_OUT,
}
SPACES = {"ts": ts, "nn": nn, "optim": optim, "text": text, "viz": viz, "functional": functional}
SPACES |= {
    "random": ts.random,
    "init": nn.init,
    "interop": nn.interop,
    "onnx": nn.onnx,
    "notes": nn.notes,
}


def public():
    """The names of all that a user may call: functions, constructors, methods."""
    seen, names = set(), []
    for space, module in SPACES.items():
        for name in getattr(module, "__all__", dir(module)):
            found = getattr(module, name)
            home = str(getattr(found, "__module__", ""))
            ours = home.startswith("tinyseq" if hasattr(module, "__all__") else module.__name__)
            if not callable(found) or id(found) in seen or name.startswith("_") or not ours:
                continue
            seen.add(id(found))
            names.append(f"{space}.{name}")
            if isinstance(found, type) and not issubclass(found, Exception):
                names += [
                    f"{space}.{name}()" if method == "forward" else f"{space}.{name}.{method}"
                    for method, f in vars(found).items()
                    if not method.startswith("_")
                    and callable(getattr(found, method))
                    and not isinstance(f, type)
                    and len(inspect.signature(getattr(found, method)).parameters) > 1
                ]
    return names
