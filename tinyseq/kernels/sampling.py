"""Drawing a symbol from softmax(logits / temperature), inside of a compiled loop."""

from __future__ import annotations

from tinyseq.kernels.activations import exp
from tinyseq.kernels.jit import EXACT, jit

REFUSED = -1  # in place of a symbol: the logits are not finite


@jit(EXACT)
def pick(logits, temperature, draw, cumulative):  # type: ignore[no-untyped-def]
    """The symbol that ``draw``, uniform in [0, 1), falls on, or `REFUSED`.

    The first i with Σ_{j ≤ i} p_j > draw · Σ_j p_j, where p_j = exp((logits_j − max) / temperature)
    in float64. A draw of exactly 0 does not pick a symbol of probability 0. Temperature 0 picks the
    first largest. ``cumulative``: float64 scratch memory for V numbers.
    """
    V = logits.shape[0]
    best = 0
    broken = 0
    for j in range(V):
        if not abs(logits[j]) < float("inf"):
            broken = 1
        if logits[j] > logits[best]:
            best = j
    if broken:
        return REFUSED
    if temperature == 0:
        return best
    largest = float(logits[best])
    for j in range(V):
        cumulative[j] = exp((float(logits[j]) - largest) / temperature)
    for j in range(1, V):
        cumulative[j] += cumulative[j - 1]
    goal = draw * cumulative[V - 1]
    for j in range(V):
        if cumulative[j] > goal:
            return j
    return V - 1
