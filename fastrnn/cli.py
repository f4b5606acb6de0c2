"""The command line: ``fastrnn info``, ``fastrnn demo`` and ``fastrnn mnist``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrnn.runtime import info


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0, or 2 after a message to stderr."""
    arguments = _parser().parse_args(argv)
    try:
        results, text = arguments.run(arguments)
    except (ImportError, OSError, ValueError) as error:
        print(f"fastrnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps(results, indent=2) if arguments.json else text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastrnn", description="Trained recurrent networks on CPUs.")
    parser.add_argument("--version", action="version", version=info()["version"])
    commands = parser.add_subparsers(dest="command", required=True)
    about = commands.add_parser("info", help="show version, instruction sets, BLAS and threads")
    about.set_defaults(run=_info)
    demo = commands.add_parser(
        "demo",
        help="turn words into phonemes with a real model",
        description='Turn words into phonemes with the GRU encoder-decoder of g2p-en (pip install "fastrnn[demo]").',
    )
    demo.add_argument("words", nargs="*", metavar="WORD", help="letters only; default: thousands of dictionary words")
    demo.set_defaults(run=_demo)
    mnist = commands.add_parser(
        "mnist",
        help="read handwritten digits row by row, the static path against the dynamic one",
        description="Read MNIST's digits row by row with a trained LSTM, on the static path and on the dynamic one, "
        'beside TensorFlow where it is installed (pip install "fastrnn[mnist]").',
    )
    mnist.add_argument("--plot", type=Path, metavar="FILE", help="draw time and accuracy, for example to mnist.png")
    mnist.add_argument("--batch", type=int, default=128, help="images a batch (%(default)s)")
    mnist.add_argument("--rounds", type=int, default=50, help="the fastest of so many counts (%(default)s)")
    mnist.add_argument(
        "--lengths", choices=("full", "ragged"), default="full", help="ragged: without the blank rows below the digit"
    )
    mnist.set_defaults(run=_mnist)
    for command in (about, demo, mnist):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _info(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    facts = info()
    blas = facts["blas"]
    rows = {
        "fastrnn": facts["version"],
        "instruction set": f"{facts['isa']} (detected {facts['isa_detected']}; can run {', '.join(facts['isas'])})",
        "threads": facts["threads"],
        "BLAS": " ".join(str(value) for value in blas.values()) if blas else "none",
        "Python": facts["python"],
        "NumPy": facts["numpy"],
        "SciPy": facts["scipy"],
    }
    return facts, "\n".join(f"{name:15}  {value}" for name, value in rows.items())


def _demo(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from fastrnn import demo

    if arguments.words:
        results = demo.run_words(arguments.words)
        return results, demo.report_words(results)
    results = demo.run_dictionary()
    return results, demo.report_dictionary(results)


def _mnist(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from fastrnn.mnist import experiment, plot

    figure = None if arguments.plot is None else plot.new_figure()
    results = experiment.run(arguments.batch, arguments.rounds, arguments.lengths)
    if figure is not None:
        plot.draw(figure, results, arguments.plot)
    return results, experiment.report(results)
