"""From one recorded step of a recurrence to a loop over all steps, in five short passes.

`trace` runs the step once and reads the recording, and that of its gradient; `split` says what
leaves the loop; `emit` writes Python that numba compiles; `runtime` runs it and joins it to the
graph as one op, `scan`. All of them work on a `program.Program`, which prints. A whole training
step is on the same kind of tape: `recorded` says when, and `playback` does it again.
"""
