"""What code names, read off its bytecode: globals, attributes, imports."""

from __future__ import annotations

import dis
import functools
from collections.abc import Sequence
from types import CodeType
from typing import NamedTuple

#: Attributes that read any other one: code that names one of these may read what it does not name
ANY_NAME = frozenset(("__dict__", "__getattribute__"))


class Names(NamedTuple):
    """What code names."""

    variables: frozenset[str]  # globals
    attributes: frozenset[str]  # also as strings, for `getattr`
    imports: frozenset[str]
    chains: frozenset[tuple[str, ...]]  # a global and attributes of it, ("np", "random", "rand")


@functools.cache
def named_by(code: CodeType) -> Names:
    """All names in code, and in the code within it."""
    variables, attributes, imports = set[str](), set[str](), set[str]()
    chains, chain = set[tuple[str, ...]](), list[str]()
    instructions = list(dis.get_instructions(code))
    for n, i in enumerate(instructions):
        if chain and i.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(i.argval)
        elif chain:
            chains.add(tuple(chain))
            chain = []
        if i.opname == "LOAD_DEREF":
            chain = [i.argval]
        elif i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            chain = [i.argval]
            variables.add(i.argval)
            if i.argval == "vars" or (i.argval == "getattr" and not _constant(instructions[n:])):
                attributes |= ANY_NAME
        elif i.opname == "IMPORT_NAME":
            imports.add(i.argval)
        elif i.argval in code.co_names:
            attributes.add(i.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = named_by(constant)
            variables |= inner.variables
            attributes |= inner.attributes
            imports |= inner.imports
            chains |= inner.chains
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)
    return Names(frozenset(variables), frozenset(attributes), frozenset(imports), frozenset(chains))


def _constant(instructions: Sequence[dis.Instruction]) -> bool:
    """Whether a call of `getattr` that begins here has its name as a constant; no, if in doubt."""
    ops = [i.opname for i in instructions]
    call = next((n for n, op in enumerate(ops) if op in ("PRECALL", "CALL")), 0)
    count = instructions[call].arg
    place = call - 1 if count == 2 else call - 2 if ops[call - 1] in _ONE_VALUE else 0
    return ops[place] == "LOAD_CONST" and isinstance(instructions[place].argval, str)


_ONE_VALUE = ("LOAD_CONST", "LOAD_FAST", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_SMALL_INT")
