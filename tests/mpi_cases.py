"""What `test_mpi.py` runs under mpiexec, on each rank: training on all equals training on one.

The one is each rank's own, with the whole batch and without a communicator.
"""

import faulthandler
import hashlib
import sys
import traceback

import numpy as np
from any_machine import PATIENCE
from mpi4py import MPI

import tinyseq as ts
from tinyseq import functional, nn, optim, text

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.Get_rank(), COMM.Get_size()
STEPS, V, H, B = 20, 7, 6, 5
RNG = np.random.default_rng(0)
TEXT = RNG.integers(0, V, 260)
SENTENCES = [RNG.integers(0, V, n) for n in RNG.integers(2, 7, 4 * B + 1)]  # the last batch: one
OPTIMISERS = {
    "SGD": lambda params: optim.SGD(params, lr=0.3, momentum=0.9),
    "Adam": lambda params: optim.Adam(params, lr=0.02, weight_decay=0.01),
}


class Tagger(nn.Module):
    """Symbols to symbols, in float64; starts from other numbers on every rank but for `seed`."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.embedding = nn.Embedding(V, H, rng)
        self.layers = nn.LSTM(H, H, rng=rng)
        self.head = nn.Linear(H, V, rng=rng)
        self.unused = nn.Parameter(np.ones(3))
        self.double()

    def forward(self, inputs, targets, lengths=None, state=None):
        y, state = self.layers(self.embedding(inputs), state, lengths=lengths)
        return functional.cross_entropy(self.head(y), targets), state

    def start(self, batch_size):
        return self.layers.initial_state(batch_size, np.float64)


def sentences(shard):
    """Padded, of unequal shards; the last batch of an epoch leaves ranks without any."""
    batches = text.Batches(SENTENCES, B, seed=0, shard=shard)
    for step in range(STEPS):
        epoch, i = divmod(step, len(batches))
        yield i, *batches.epoch(epoch)[i]


def tracks(shard):
    """Truncated back-propagation: the state goes on."""
    chunks = text.Partition(TEXT, B, 4, shard=shard)
    for step in range(STEPS):
        i = step % len(chunks)
        yield i, *chunks[i], None


def loop(model, optimiser, batches, comm):
    """A handwritten loop."""
    losses, state, carried = [], None, batches is tracks
    if comm is not None:
        optim.broadcast(optimiser, comm)
    for i, inputs, targets, lengths in batches((RANK, SIZE) if comm is not None else (0, 1)):
        weight = int((targets != -100).sum())
        loss = None
        optimiser.zero_grad()
        if weight:
            loss, state = model(inputs, targets, lengths, state if carried and i else None)
            loss.backward()
            state = nn.detach(state)
        mean = None if loss is None else loss.item()
        if comm is not None:
            mean = optim.average_gradients(model.parameters(), comm, weight, loss)
        optim.clip_grad_norm(optimiser.params, 0.5)
        optimiser.step()
        losses.append(mean)
    return losses


def training_step(mode):
    def run(model, optimiser, batches, comm):
        losses, state, carried = [], None, batches is tracks
        step = nn.TrainingStep(model, optimiser, max_norm=0.5, mode=mode, comm=comm)
        for i, inputs, targets, lengths in batches((RANK, SIZE) if comm is not None else (0, 1)):
            weight = (targets != -100).sum()
            state = state if carried and i else model.start(inputs.shape[1])
            made = step(inputs, targets, lengths, state, weight=weight)
            if weight:
                made, state = made
            losses.append(made.item())
            assert step.norm > 0
        return losses

    return run


def same(way, kind, batches):
    """Trained on all ranks and on one."""
    results = []
    for comm, seed in ((None, 0), (COMM, RANK), (COMM, RANK))[: 2 + (kind == "Adam")]:
        ts.seed(0)
        model = Tagger(seed)
        optimiser = OPTIMISERS[kind](model.parameters())
        losses = way(model, optimiser, batches, comm)
        results.append((losses, [p.numpy().copy() for p in model.parameters()]))
        assert sorted(set(optimiser.steps)) == [0, STEPS]  # 0: of what is not used
    (one, alone), (losses, together) = results[:2]
    for p, q in zip(alone, together, strict=True):
        np.testing.assert_allclose(q, p, rtol=0, atol=1e-12)
    np.testing.assert_allclose(losses, one, rtol=1e-12)
    digests = {hashlib.sha256(b"".join(p.tobytes() for p in q)).hexdigest() for _, q in results[1:]}
    assert len(digests) == 1  # the same bits again
    return digests.pop()


def equality():
    """Plain loop and training step, two optimisers, unequal shards, lengths, and tracks."""
    ways = {"loop": loop, "unroll": training_step("unroll"), "auto": training_step("auto")}
    return [
        same(way, kind, batches)
        for way in ways.values()
        for kind in OPTIMISERS
        for batches in (sentences, tracks)
    ]


def noise():
    """Each rank drops other units, in all ranks as in a run before; one rank alone as ever."""

    def drawn():
        ts.seed(7)
        optim.broadcast(optim.SGD(Tagger(0).parameters()), COMM)
        return ts.random.generator().random(4).tolist()

    everywhere = COMM.allgather(drawn())
    assert len({str(numbers) for numbers in everywhere}) == SIZE
    assert drawn() == everywhere[RANK]
    ts.seed(7)
    before = ts.random.get_state()
    optim.broadcast(optim.SGD(Tagger(0).parameters()), MPI.COMM_SELF)
    assert ts.random.get_state() == before


def refused(kind, words, call, *args, **kwargs):
    """Raised, with these words, on every rank: none of them waits for another."""
    try:
        call(*args, **kwargs)
    except kind as error:
        said = "\n".join([str(error), *getattr(error, "__notes__", [])])
        assert words in said, said
    else:
        raise AssertionError(f"no {kind.__name__}: {words}")


def failures():
    """An error of one rank is one of all, and leaves the parameters as they were."""
    last = SIZE - 1
    w = nn.Parameter(np.full(3, float(RANK)))
    broken = []

    def loss(x):
        if broken:
            raise ArithmeticError("broken")
        return (w * x).sum()

    sgd = optim.SGD([w], lr=0.1, momentum=0.5)
    step = nn.TrainingStep(loss, sgd, comm=COMM)
    assert w.numpy().tolist() == [0, 0, 0]  # those of rank 0
    x = np.ones(3)
    for _ in range(4):
        step(x, weight=1)
    before = w.numpy().copy()
    for mode in ("auto", "unroll"):
        step.mode = mode
        if last == RANK:
            broken.append(True)
            refused(ArithmeticError, f"on rank {last}", step, x, weight=1)
            broken.clear()
        else:
            refused(RuntimeError, f"rank {last} failed in this step", step, x, weight=1)
    refused(ValueError, "the weight is 0 on every rank", step, x, weight=0)
    for wrong in (None, -1, "2", float("nan")):
        if last == RANK:
            refused((TypeError, ValueError), "weight=", step, x, weight=wrong)
        else:
            refused(RuntimeError, f"rank {last} failed", step, x, weight=1)
    assert w.numpy().tobytes() == before.tobytes()
    step.mode = "auto"
    step(x, weight=1)

    other = nn.Parameter(np.zeros(3 + (last == RANK)))
    refused(ValueError, f"on rank {last}", optim.broadcast, optim.SGD([other]), COMM)
    optim.check_equal([w], COMM)
    with ts.no_grad():
        w._data[0] += 1e-15 * (last == RANK)
    step._steps = 99  # the hundredth step
    refused(RuntimeError, f"params on rank {last} are", optim.check_equal, [w], COMM)
    step(x, weight=1)
    refused(RuntimeError, f"params on rank {last} are", step, x, weight=1)


def dtypes():
    """float32 beside float64, and gradients that some ranks alone have."""
    p, q, r = nn.Parameter(np.zeros(2, np.float32)), nn.Parameter(np.zeros(2)), nn.Parameter(1.0)
    p.grad = ts.tensor(np.full(2, RANK + 1, np.float32))
    q.grad = ts.tensor(np.full(2, 3.0)) if RANK == 0 else None
    weight = RANK + 1
    mean = optim.average_gradients([p, q, r], COMM, weight, 1.0 * RANK)
    weights = np.arange(1, SIZE + 1)
    assert np.isclose(mean, (weights * (weights - 1)).sum() / weights.sum())
    np.testing.assert_allclose(p.grad.numpy(), (weights**2).sum() / weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(q.grad.numpy(), 3 / weights.sum())
    assert (p.grad.dtype, q.grad.dtype, r.grad) == (np.float32, np.float64, None)


def main():
    faulthandler.dump_traceback_later(PATIENCE / 2)
    for case in (dtypes, noise, failures):
        case()
    digests = equality()
    assert len(set(COMM.allgather(str(digests)))) == 1
    if RANK == 0:
        print(f"{SIZE} ranks, {hashlib.sha256(str(digests).encode()).hexdigest()}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        COMM.Abort(3)
