"""``python -m tinyseq.viz lstm --steps 3 --layers 2 -o lstm.svg``: an unrolled layer, drawn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from tinyseq import nn

from . import RenderError, draw_unrolled
from .unrolled import LEVELS


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tinyseq.viz",
        description="Draw a recurrent layer unrolled: one column a step, each parameter once.",
    )
    parser.add_argument("cell", choices=("rnn", "gru", "lstm"))
    parser.add_argument("--steps", type=_count, default=3, metavar="T", help="columns (default 3)")
    parser.add_argument("--layers", type=_count, default=1, metavar="N", help="rows (default 1)")
    parser.add_argument(
        "--input", type=_count, default=3, metavar="D", help="width of x (default 3)"
    )
    parser.add_argument(
        "--hidden", type=_count, default=4, metavar="H", help="width of h (default 4)"
    )
    parser.add_argument(
        "--variant",
        choices=("reset_after", "reset_before", "simplified"),
        help="of the GRU (default reset_after)",
    )
    parser.add_argument(
        "--nonlinearity", choices=("tanh", "relu"), help="of the RNN (default tanh)"
    )
    parser.add_argument("--bidirectional", action="store_true", help="run from both ends")
    parser.add_argument(
        "--dropout", type=float, default=0.0, metavar="P", help="between the layers"
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default="cell",
        help="layer: rolled up; op: every operation (default cell)",
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help=".svg, .png, .pdf, .dot or .gv (default: print DOT)"
    )
    parser.add_argument("--dot", action="store_true", help="print DOT text, also with -o")
    options = parser.parse_args(arguments)
    if options.variant and options.cell != "gru":
        parser.error(f"--variant is for gru, not for {options.cell}")
    if options.nonlinearity and options.cell != "rnn":
        parser.error(f"--nonlinearity is for rnn, not for {options.cell}")

    makers: dict[str, Callable[..., nn.Stacked]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    own = {key: value for key in ("variant", "nonlinearity") if (value := getattr(options, key))}
    try:
        layer = makers[options.cell](
            options.input, options.hidden, options.layers,
            bidirectional=options.bidirectional, dropout=options.dropout, **own,
        )  # fmt: skip
        picture = draw_unrolled(layer, options.steps, level=options.level)
        if options.out:
            picture.save(options.out)
    except (ValueError, OSError, RenderError) as problem:
        print(f"tinyseq.viz: {problem}", file=sys.stderr)
        return 1
    if options.dot or not options.out:
        print(picture.dot, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
