"""Pictures from a shell: ``python -m tinyseq.viz draw lstm --steps 3 --layers 2 -o lstm.svg``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tinyseq as ts
from tinyseq import nn
from tinyseq.nn.cells import NONLINEARITIES

from . import RenderError
from .unrolled import LEVELS, draw_unrolled

CELLS: dict[str, Callable[..., nn.Stacked]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in CELLS:
        words.insert(0, "draw")
    if words[:1] == ["gallery"]:  # which has its own, and much to import
        from .gallery.index import main as gallery

        return gallery(words[1:], "python -m tinyseq.viz gallery")
    options = _parser().parse_args(words)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # what reads it has had enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (LookupError, OSError, RenderError, ValueError) as problem:
        said = problem.args[0] if isinstance(problem, KeyError) and problem.args else problem
        print(f"tinyseq.viz: {said}", file=sys.stderr)
        return 1
    return 0


# -- what there is to do --------------------------------------------------------------------------


def _draw(options: argparse.Namespace) -> None:
    layer = _layer(options)
    if options.flow:
        picture = draw_unrolled(
            _loss(layer, options.steps), level=options.level, params=layer, flow=options.flow
        )
    else:
        picture = draw_unrolled(layer, options.steps, level=options.level)
    if options.out:
        picture.save(options.out)
    if options.dot or not options.out:
        print(picture.dot, end="")


def _page(options: argparse.Namespace) -> None:
    from .page import page

    page(_layer(options), options.out, options.steps)


def _flow(options: argparse.Namespace) -> None:
    from . import gradient_flow

    layers = {cell.upper(): CELLS[cell](options.input, options.hidden) for cell in options.cells}
    gradient_flow(layers, _noise(options.steps, options.input)).save(options.out)


def _training(options: argparse.Namespace) -> None:
    from . import training

    training(*options.runs).save(options.out)


def _colour(options: argparse.Namespace) -> None:
    from . import colour_text

    model, vocabulary, text = _read(options)
    coloured = colour_text(
        model, vocabulary, text, options.unit, layer=options.layer, name=options.name
    )
    if options.out:
        coloured.save(options.out)
    else:
        print(coloured)


def _heatmap(options: argparse.Namespace) -> None:
    from . import heatmap, record

    model, vocabulary, text = _read(options)
    recorded = record(model, vocabulary.encode(text))
    heatmap(recorded, options.name, layer=options.layer, symbols=text).save(options.out)


def _units(options: argparse.Namespace) -> None:
    from . import find_units

    model, vocabulary, text = _read(options)
    print(find_units(model, vocabulary, text, options.property, top=options.top))


# -- on what --------------------------------------------------------------------------------------


def _layer(options: argparse.Namespace) -> nn.Stacked:
    own = {key: value for key in ("variant", "nonlinearity") if (value := getattr(options, key))}
    for key, cell in (("variant", "gru"), ("nonlinearity", "rnn")):
        if key in own and options.cell != cell:
            options.parser.error(f"--{key} is for {cell}, not for {options.cell}")
    return CELLS[options.cell](
        options.input, options.hidden, options.layers,
        bidirectional=options.bidirectional, dropout=options.dropout, **own,
    )  # fmt: skip


def _noise(steps: int, width: int) -> ts.Tensor:
    return ts.tensor(
        np.random.default_rng(0).normal(size=(steps, 1, width)), np.float32, requires_grad=True
    )


def _loss(layer: nn.Stacked, steps: int) -> ts.Tensor:
    """Σ y⟨T⟩²: a loss that looks at the last step alone."""
    y, _ = layer(_noise(steps, layer.input_size))
    loss: ts.Tensor = (y[-1] ** 2).sum()
    return loss


def _read(options: argparse.Namespace) -> tuple[Any, Any, str]:
    """The model, its vocabulary, and the text to read."""
    from .saved import language_model

    text = options.text
    if options.file is not None:
        text = _text_of(options.file)
    if options.first is not None:
        text = text[: options.first]
    return *language_model(options.checkpoint), text


def _text_of(file: Path) -> str:
    """What a file says. Raises `ValueError` for what is no text, `OSError` if it cannot be read."""
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        wrong = content.find(b"\0")  # no text has it, and most other files do
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise ValueError(
            f"--file {file} is no UTF-8 text: see its byte {wrong}. Give a text file, "
            f"one of another encoding turned into UTF-8 first: iconv -f latin1 -t utf-8 {file.name}"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


# -- the command line -----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinyseq.viz",
        description="Pictures of recurrent networks. COMMAND --help says more; without a command "
        "it is draw: python -m tinyseq.viz lstm",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], what: str, *parents: Any
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what, parents=parents)
        added.set_defaults(run=run, parser=added)
        return added

    layer, model = _layer_options(), _model_options()

    draw = command("draw", _draw, "draw a layer unrolled, one column a step", layer)
    draw.add_argument(
        "--steps", type=_count, default=3, metavar="T", help="columns (default %(default)s)"
    )
    draw.add_argument(
        "--level", choices=LEVELS, default="cell",
        help="layer: rolled up; op: every operation (default cell)",
    )  # fmt: skip
    draw.add_argument(
        "--flow", choices=("gradient", "value"),
        help="colour and width of the arrows by what flows, for the loss Σ y(T)² on random input",
    )  # fmt: skip
    _out(draw, ".svg, .png, .pdf, .dot or .gv (default: print DOT)", required=False)
    draw.add_argument("--dot", action="store_true", help="print DOT text, also with -o")

    page = command("page", _page, "write a page to look into a layer with", layer)
    page.add_argument("--steps", type=_count, default=20, metavar="T", help="(default %(default)s)")
    _out(page, "an .html file")

    flow = command("flow", _flow, "chart how far back the gradient of the last step reaches")
    flow.add_argument("cells", nargs="+", choices=CELLS, metavar="CELL", help=", ".join(CELLS))
    flow.add_argument(
        "--steps", type=_count, default=100, metavar="T", help="(default %(default)s)"
    )
    _sizes(flow, hidden=64)
    _out(flow, ".png, .svg or .pdf")

    training = command("training", _training, "chart the losses of training runs")
    training.add_argument("runs", nargs="+", metavar="RUN", help="folders or logs")
    _out(training, ".png, .svg or .pdf")

    colour = command("colour", _colour, "colour a text by one unit of a language model", model)
    colour.add_argument("--unit", type=int, required=True, metavar="N", help="from 0")
    _which(colour)
    _out(colour, "an .html file (default: print it, in colour on a terminal)", required=False)

    heatmap = command("heatmap", _heatmap, "draw a language model's state over a text", model)
    _which(heatmap)
    _out(heatmap, ".png, .svg or .pdf")

    units = command("units", _units, "find the units that follow a property of a text", model)
    units.add_argument("--property", required=True, metavar="P", help="such as quotation, capital")
    units.add_argument("--top", type=_count, default=10, metavar="N", help="(default %(default)s)")

    commands.add_parser("gallery", help="draw the figures of the lecture notes into one page")
    return parser


def _layer_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("cell", choices=CELLS)
    options.add_argument(
        "--layers", type=_count, default=1, metavar="N", help="rows (default %(default)s)"
    )
    _sizes(options, hidden=4)
    options.add_argument(
        "--variant", choices=("reset_after", "reset_before", "simplified"),
        help="of the GRU (default reset_after)",
    )  # fmt: skip
    options.add_argument("--nonlinearity", choices=NONLINEARITIES, help="of the RNN (default tanh)")
    options.add_argument("--bidirectional", action="store_true", help="run from both ends")
    options.add_argument(
        "--dropout", type=float, default=0.0, metavar="P", help="between the layers"
    )
    return options


def _sizes(parser: argparse.ArgumentParser, hidden: int) -> None:
    for name, letter, what, default in (
        ("input", "D", "x", 3),
        ("hidden", "H", "h", hidden),
    ):
        parser.add_argument(
            f"--{name}", type=_count, default=default, metavar=letter,
            help=f"width of {what} (default %(default)s)",
        )  # fmt: skip


def _model_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--checkpoint", required=True, metavar="FILE",
        help="of a language model, as demos/shakespeare.py saves it",
    )  # fmt: skip
    text = options.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="what it is to read")
    text.add_argument("--file", type=Path, help="a UTF-8 file to read")
    options.add_argument("--first", type=_count, metavar="N", help="characters of it at most")
    return options


def _which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layer",
        type=_place,
        default=-1,
        metavar="L",
        help="by number or name (default: the last)",
    )
    parser.add_argument(
        "--name", metavar="V", help="which value: h, c, forget … (default: the state)"
    )


def _out(parser: argparse.ArgumentParser, kinds: str, required: bool = True) -> None:
    parser.add_argument("-o", "--out", required=required, metavar="FILE", help=kinds)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _place(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() else text


if __name__ == "__main__":
    sys.exit(main())
