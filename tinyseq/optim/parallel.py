"""One training on many processes: each reads a shard of the batch, their gradients are averaged.

The processes, called ranks, are those of an MPI communicator of mpi4py, such as ``MPI.COMM_WORLD``.
All start alike, make the same update with the same averages, and so stay alike. Every function here
is collective: all ranks have to call it. An error that a handwritten loop meets on one rank leaves
the others waiting; `mpiexec -n 4 python -m mpi4py train.py` ends them all instead.
"""

from __future__ import annotations

import contextlib
import math
import operator
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Protocol

import numpy as np

from tinyseq import graph, random
from tinyseq.arguments import Within, checked
from tinyseq.optim.optimizers import Optimizer, tensors
from tinyseq.tensor import Tensor

__all__ = ["average_gradients", "broadcast", "check_equal"]


class Communicator(Protocol):
    """What is used of an mpi4py communicator."""

    def Get_rank(self) -> int: ...
    def Get_size(self) -> int: ...
    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> Any: ...
    def allgather(self, sendobj: Any) -> Any: ...
    def bcast(self, obj: Any) -> Any: ...


Weight = Annotated[
    float,
    Within(
        lambda n: 0 <= n < math.inf,
        "at least 0 and finite: how many predictions this rank's loss is the mean of",
    ),
]


@checked
def broadcast(optimizer: Optimizer, comm: Communicator) -> None:
    """Start alike: all ranks get rank 0's parameters and state of the optimiser, learning rate
    included. Each draws its noise (dropout) from a stream of its own, split from rank 0's: see
    `tinyseq.random.spawn`; with a single rank the stream stays as it is.

    A layer that was given an ``rng`` draws from that: give it another one on each rank.

    Raises `ValueError`, on all ranks, where parameters differ in number, shape or dtype, or the
    optimiser in its kind or buffers.
    """
    params, rank, size = optimizer.params, comm.Get_rank(), comm.Get_size()
    layout = [(p.shape, str(p.dtype)) for p in params]
    made = type(optimizer).__name__, sorted(optimizer.state_dict()), layout
    if others := _odd_ones(comm.allgather(made)):
        raise ValueError(
            f"broadcast: optimizer has other parameters, or is of another kind, on {others} than "
            "on the others. Make the same model and the same optimiser on every rank."
        )
    arrays, state, stream = comm.bcast(
        ([p._data for p in params], optimizer.state_dict(), random.get_state())
    )
    for p, array in zip(params, arrays, strict=True):
        p._data[...] = array
        p.changed()
    optimizer.load_state_dict(state)
    if size > 1:
        random.set_state(stream)
        random.seed(random.spawn(size)[rank])


@checked
def average_gradients(
    params: Iterable[Tensor],
    comm: Communicator,
    weight: Weight,
    loss: Tensor | float | None = None,
) -> float | None:
    """Each ``p.grad`` ← Σᵣ wᵣ gᵣ / Σᵣ wᵣ over the ranks r, with one Allreduce for all together.

    To be called between ``loss.backward()`` and clipping. ``weight`` wᵣ is how many predictions
    this rank's loss is the mean of, such as ``(targets != -100).sum()``: so the average is the
    gradient of the mean over the whole batch, however it is shared out. A rank that has none of it
    passes 0 and no loss, with all gradients `None`. A parameter without a gradient here counts as
    zeros if another rank has one. Each rank gives the same parameters, in the same order.

    Returns Σᵣ wᵣ lossᵣ / Σᵣ wᵣ, also where the weight is 0; `None` where there is a weight and no
    loss. What is averaged is cut off from its recording. Raises `ValueError`, on all ranks, when
    all weights are 0.
    """
    graph.unrepeated("optim.average_gradients()")
    params = tensors("average_gradients", params)
    averaging = Averaging(params, comm)
    gradients = [None if p.grad is None else p.grad._data for p in params]
    value = loss.item() if isinstance(loss, Tensor) else loss
    unknown = math.nan if weight else 0.0
    mean = averaging(gradients, weight, unknown if value is None else value)
    for p, g in zip(params, averaging.gradients, strict=True):
        p.grad = None if g is None else Tensor.wrap(g)
    return None if value is None and weight else mean


@checked
def check_equal(params: Iterable[Tensor], comm: Communicator) -> None:
    """Raise `RuntimeError`, on all ranks, unless all have the same parameters, to the bit.

    It names the ranks whose checksum differs from most. Cheap enough for every hundredth step.
    """
    checksum = 0
    for p in tensors("check_equal", params):
        checksum = zlib.crc32(np.ascontiguousarray(p._data).data, checksum)
    if others := _odd_ones(comm.allgather(checksum)):
        raise RuntimeError(
            f"the parameters of params on {others} are no longer those of the others. "
            "All start alike after optim.broadcast; after that change them on every rank in the "
            "same way, by the averaged gradients alone. If so it is, a machine computes wrongly."
        )


class Averaging:
    """Averages gradients of parameters over ranks: what goes out and what comes back are two flat
    arrays, made once. In each, behind the gradients: for every parameter how many ranks have one,
    then the weight, the loss times the weight, and how many ranks have failed.
    """

    def __init__(self, params: Sequence[Tensor], comm: Communicator) -> None:
        self.params, self.comm = list(params), comm
        dtype = np.result_type(*[p.dtype for p in params])
        self._sizes = [p.size for p in params]
        self._sent, self._received = np.zeros((2, sum(self._sizes) + len(params) + 3), dtype)
        self._out, self._back = self._views(self._sent), self._views(self._received)
        self._averages = [
            back if back.dtype == p.dtype else np.zeros(p.shape, p.dtype)
            for back, p in zip(self._back, params, strict=True)
        ]
        self.gradients: list[np.ndarray | None] = []
        self.moved = True  # whether other parameters have a gradient than in the call before

    def _views(self, flat: np.ndarray) -> list[np.ndarray]:
        *parts, _ = np.split(flat, np.cumsum(self._sizes))
        return [part.reshape(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def holds(self, params: Sequence[Tensor], comm: Communicator) -> bool:
        """Whether it was made for these."""
        same = comm is self.comm and len(params) == len(self.params)
        return same and all(map(operator.is_, params, self.params))

    def __call__(self, gradients: Sequence[np.ndarray | None], weight: float, loss: float) -> float:
        """The mean loss; the averages are in ``gradients``, `None` where no rank has one, until the
        next call in the same memory.
        """
        for out, g in zip(self._out, gradients, strict=True):
            if g is None:
                out[...] = 0
            else:
                np.multiply(g, weight, out=out)
        tail = -len(self.params) - 3
        self._sent[tail:] = [*[g is not None for g in gradients], weight, weight * loss, 0]
        self._exchange()
        *have, total, losses, _ = self._received[tail:].tolist()
        if not total:
            raise ValueError(
                "the weight is 0 on every rank: nobody has a prediction to learn from in this step."
            )
        self._received[:tail] /= total
        for average, back in zip(self._averages, self._back, strict=True):
            if average is not back:
                average[...] = back
        there = [a if n else None for a, n in zip(self._averages, have, strict=True)]
        self.moved = [g is None for g in there] != [g is None for g in self.gradients]
        self.gradients = there
        return float(losses / total)

    def _exchange(self) -> None:
        """Receive the sums over all ranks. Raises on all of them when one has failed."""
        self.comm.Allreduce(self._sent, self._received)
        if self._received[-1]:
            failed = self.comm.allgather(bool(self._sent[-1]))
            names = _ranks([rank for rank, it in enumerate(failed) if it])
            raise RuntimeError(
                f"{names} failed in this step, and said why there. Parameters are as they were."
            )

    @contextlib.contextmanager
    def or_all_fail(self) -> Iterator[None]:
        """What fails inside, before gradients are averaged, leaves no other rank waiting."""
        try:
            yield
        except Exception as error:
            self._sent[:] = 0
            self._sent[-1] = 1
            with contextlib.suppress(RuntimeError):
                self._exchange()
            error.add_note(f"This was on {_ranks([self.comm.Get_rank()])}.")
            raise


def _odd_ones(values: Sequence[Any]) -> str:
    """The ranks whose value is not that of most (rank 0's, if it is a draw); empty if none is."""
    counts = Counter(map(repr, values))
    usual = max(counts, key=counts.__getitem__)  # the first of several
    return _ranks([rank for rank, value in enumerate(values) if repr(value) != usual])


def _ranks(numbers: Sequence[int]) -> str:
    """In words: "rank 2", "ranks 0, 2"."""
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""
