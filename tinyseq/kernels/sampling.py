"""Drawing a symbol in a compiled loop: softmax(logits / temperature), top-k and top-p.

`tinyseq.text.generation` says the same in NumPy, for what runs unrolled: both pick the same symbol.
"""

from __future__ import annotations

from tinyseq.kernels.activations import exp
from tinyseq.kernels.jit import EXACT, jit

NOT_FINITE = -1  # in place of a symbol, for logits that are not


@jit(EXACT)
def pick(logits, draw, temperature, top_k, top_p, refused, weights, heap):  # type: ignore[no-untyped-def]
    """The symbol that ``draw``, uniform in [0, 1), falls on, or `NOT_FINITE`.

    The first i with Σ_{j ≤ i} p_j > draw · Σ_j p_j, where p_j = exp((logits_j − max) / temperature)
    in float64, and 0 for all that is ``refused`` (whose logits become −∞), that is not among the
    ``top_k`` likeliest, or not among the fewest likeliest of these that have ``top_p`` of their
    probability. A draw of exactly 0 does not pick a symbol of probability 0. Temperature 0 picks
    the first largest. ``weights`` and ``heap``: scratch memory for V numbers, float64 and int64.
    """
    V = logits.shape[0]
    broken = 0
    for j in range(V):
        if not abs(logits[j]) < float("inf"):
            broken = 1
    if broken:
        return NOT_FINITE
    for j in refused:
        logits[j] = -float("inf")
    best = 0
    for j in range(V):
        if logits[j] > logits[best]:
            best = j
    if temperature == 0:
        return best
    largest = float(logits[best])
    for j in range(V):
        weights[j] = exp((float(logits[j]) - largest) / temperature)  # of −∞ it is 0
    if top_k < V:
        _keep(logits, weights, top_k, 2.0, heap)
    if top_p < 1:
        _keep(logits, weights, V, top_p, heap)
    for j in range(1, V):
        weights[j] += weights[j - 1]
    goal = draw * weights[V - 1]
    for j in range(V):
        if weights[j] > goal:
            return j
    return best


@jit(EXACT)
def _keep(logits, weights, count, share, heap):  # type: ignore[no-untyped-def]
    """Set all weights to 0 but those of the likeliest: ``count`` of them, or as many as it takes to
    have this share of the sum. Of equals the first go first.

    The symbols lie in a heap, so that it takes O(V + n log V) to find the n likeliest.
    """
    size = 0
    total = 0.0
    for j in range(weights.shape[0]):
        if weights[j] > 0:
            heap[size] = j
            size += 1
            total += weights[j]
    for at in range(size // 2 - 1, -1, -1):
        _sink(logits, heap, at, size)
    kept = 0
    mass = 0.0
    while size > 0 and kept < count and mass < share * total:
        mass += weights[heap[0]]
        kept += 1
        size -= 1
        heap[0] = heap[size]
        _sink(logits, heap, 0, size)
    for n in range(size):
        weights[heap[n]] = 0.0


@jit(EXACT)
def _sink(logits, heap, at, size):  # type: ignore[no-untyped-def]
    """Put the symbol at a place of the heap below those that are likelier."""
    symbol = heap[at]
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and _likelier(logits, heap[below + 1], heap[below]):
            below += 1
        if not _likelier(logits, heap[below], symbol):
            break
        heap[at] = heap[below]
        at = below
    heap[at] = symbol


@jit(EXACT, inline=True)
def _likelier(logits, i, j):  # type: ignore[no-untyped-def]
    return logits[i] > logits[j] or (logits[i] == logits[j] and i < j)
