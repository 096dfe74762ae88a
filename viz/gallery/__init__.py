"""The figures of the lecture notes, drawn from running code: ``python -m tinyseq.viz gallery``."""
