"""Everything that numba compiles, and the one place that imports it.

`jit` is how a function is compiled and kept on disk; `gemm` multiplies matrices, `activations` are
the scalar functions of a compiled loop, `losses` and `updates` are fused passes over arrays,
`sampling` draws a symbol, `threads` shares out the work, `memory` begins where a cache line does.
Nothing here is imported before a compiled layer is first run.
"""
