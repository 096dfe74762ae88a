"""What `import tinyseq` costs beyond `import numpy`: fresh processes in turns, median of
differences.

    python tests/benchmarks/importing.py
"""

from __future__ import annotations

import subprocess
import sys

CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    command = [sys.executable, "-c", CODE.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(turns: int = 15) -> None:
    pairs = [(seconds("numpy"), seconds("tinyseq")) for _ in range(turns)]
    numpy = sorted(a for a, _ in pairs)[turns // 2]
    extra = sorted(b - a for a, b in pairs)[turns // 2]
    print(f"import numpy {1e3 * numpy:.0f} ms, import tinyseq {1e3 * extra:.0f} ms more")


if __name__ == "__main__":
    main()
