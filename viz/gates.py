"""Which ops of a cell belong to which gate, read from what the code calls its values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def find_gates(
    ops: Mapping[int, str],
    edges: Iterable[tuple[int, int]],
    names: Mapping[int, str],
    states: Collection[int],
) -> dict[int, str]:
    """The gate of each op that has one: ``ops`` by position, inputs first, ``edges`` between them.

    A gate is a value with a name that something is multiplied with, and that is no part of the new
    state. To it belong what is computed for it alone, what is computed from it alone (1 − u) and
    the products it makes.
    """
    above: dict[int, list[int]] = {i: [] for i in ops}
    below: dict[int, list[int]] = {i: [] for i in ops}
    for tail, head in edges:
        above[tail].append(head)
        below[head].append(tail)
    gates = {
        i: name
        for i, name in names.items()
        if i not in states and any(ops[j] == "mul" for j in above[i])
    }
    found = dict(gates)
    for i, op in ops.items():  # from a gate alone, and the products with it
        made_from = [found[j] for j in below[i] if j in found]
        alone = len(made_from) == len(below[i]) and len(set(made_from)) == 1
        if made_from and i not in names and i not in states and (alone or op == "mul"):
            found[i] = made_from[0]
    serves: dict[int, set[str]] = {}
    for i in reversed(list(ops)):  # for a gate alone
        if i in gates or i in states:
            serves[i] = {gates.get(i, "")}
            continue
        serves[i] = {gate for j in above[i] for gate in serves[j]} or {""}
        if i not in found and len(serves[i]) == 1 and (gate := min(serves[i])):
            found[i] = gate
    return found
