"""What a call means when an argument is left out: the names, their order and their defaults.

``python tests/test_interface.py`` writes the list anew; look at what changed before you commit it.
"""

import inspect
import re
from pathlib import Path

import pytest
from calls import SPACES, public

GOLDEN = Path(__file__).parent / "golden" / "interface.txt"


def signature(name):
    """How a public callable is called: its arguments with their defaults, without annotations."""
    space, _, rest = name.partition(".")
    found = SPACES[space]
    for part in rest.removesuffix("()").split("."):
        found = getattr(found, part)
    found = found.forward if rest.endswith("()") else found
    signature = inspect.signature(found)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    said = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return name.removesuffix("()") + re.sub(r" at 0x\w+", "", said)


def interface():
    """A line for each public callable but the errors."""
    return sorted(signature(name) for name in public() if not is_error(name))


def is_error(name):
    space, _, rest = name.partition(".")
    found = getattr(SPACES[space], rest, None)
    return isinstance(found, type) and issubclass(found, Exception)


@pytest.mark.parametrize("space", sorted(SPACES))
def test_arguments_and_defaults_stay_as_they_are(space):
    kept = GOLDEN.read_text(encoding="utf-8").splitlines()
    now = [line for line in interface() if line.startswith(f"{space}.")]
    assert now == [line for line in kept if line.startswith(f"{space}.")]


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(interface()) + "\n", encoding="utf-8")
