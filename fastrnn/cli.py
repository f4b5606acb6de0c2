"""The command line: ``fastrnn info``, ``demo``, ``mnist``, ``bench`` and ``serve``; those of files are in commands/."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fastrnn import extras
from fastrnn.commands import parsers
from fastrnn.runtime import info
from fastrnn.serve import options as serve_options

MESSAGE_LENGTH = 400  # characters of an error message at most

INTERRUPTED, BROKEN_PIPE = 130, 141  # the exit codes that a shell reports for signals: 128 + SIGINT, 128 + SIGPIPE


class Outcome(NamedTuple):
    """What a command's function returns, or a part of it from the front.

    Attributes
    ----------
    results : printed with --json
    text : printed without; None for a command that has written its output itself
    code : the exit code
    """

    results: dict[str, Any]
    text: str | None
    code: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    That is the command's own (0; of ``verify`` also 1), 2 after a line on stderr, 130 after Ctrl-C, 141 for a broken
    pipe.
    """
    try:
        try:
            arguments = _parser().parse_args(argv)
            outcome = Outcome(*arguments.run(arguments))
            if arguments.json:
                print(json.dumps(outcome.results, indent=2))
            elif outcome.text is not None:
                print(outcome.text)
        finally:
            _flush()
    except BrokenPipeError:
        return BROKEN_PIPE
    except (ImportError, OSError, ValueError) as error:
        with suppress(OSError):
            print(f"fastrnn: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return outcome.code


def _flush() -> None:
    """Write what is buffered. If that fails, discard it: Python would try again at exit and print a traceback."""
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise


def _one_line(text: str) -> str:
    """`text` on one line. The middle of a long text is left out, because its end says what was wanted."""
    line = " ".join(text.split())
    if len(line) <= MESSAGE_LENGTH:
        return line
    half = MESSAGE_LENGTH // 2 - len(" [...] ")
    return f"{line[:half]} [...] {line[-half:]}"


class _Parser(argparse.ArgumentParser):
    """A parser with short messages, which raises an error if it cannot write them."""

    brief = False  # whether an error is one line, without the usage

    def error(self, message: str) -> NoReturn:
        super().error(_one_line(message))

    def print_usage(self, file: Any = None) -> None:
        if not self.brief:
            super().print_usage(file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        namespace, unknown = super().parse_known_args(args, namespace)
        if self.brief and unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        file = file or sys.stderr  # argparse does the same, but ignores errors here
        if file is not None:
            file.write(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastrnn", description="Trained recurrent networks on CPUs.")
    parser.add_argument("--version", action="version", version=info()["version"])
    commands = parser.add_subparsers(dest="command", required=True)
    parsers.add(commands)
    about = commands.add_parser("info", help="show version, instruction sets, BLAS and threads")
    about.set_defaults(run=_info)
    demo = commands.add_parser(
        "demo",
        help="turn words into phonemes with a real model",
        description=f"Turn words into phonemes with the GRU encoder-decoder of g2p-en ({extras.cure('demo')}).",
    )
    demo.add_argument("words", nargs="*", metavar="WORD", help="letters only; default: thousands of dictionary words")
    demo.set_defaults(run=_demo)
    mnist = commands.add_parser(
        "mnist",
        help="read handwritten digits row by row; compare the static and the dynamic path",
        description="Read MNIST's digits row by row with a trained LSTM, on the static path and on the dynamic one, "
        f"and by TensorFlow if it is installed ({extras.cure('mnist')}).",
    )
    mnist.add_argument("--plot", type=Path, metavar="FILE", help="draw time and accuracy, for example to mnist.png")
    mnist.add_argument("--batch", type=int, default=128, help="images in a batch (%(default)s)")
    mnist.add_argument("--rounds", type=int, default=50, help="number of rounds; the fastest counts (%(default)s)")
    mnist.add_argument(
        "--lengths", choices=("full", "ragged"), default="full", help="ragged: without the blank rows below the digit"
    )
    mnist.set_defaults(run=_mnist)
    for command in (about, demo, mnist):
        command.add_argument("--json", action="store_true", help="print JSON")
    _add_bench(commands)
    _add_serve(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[_Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="serve models over HTTP, WebSocket and gRPC",
        description="Serve models by the Open Inference Protocol (REST and gRPC), with sequences, and by WebSocket "
        f"({extras.cure('serve')}; gRPC: extra 'grpc'). docs/serving.md has the protocols.",
    )
    serve.brief = True
    serve_options.add_arguments(serve)
    serve.set_defaults(run=_serve, json=False)


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="compare the speed of fastrnn with other engines",
        description="Compare the speed of fastrnn with the installed engines and with the machine's limits.",
    )
    bench.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help="of workloads, or all; default: the four main ones. precision, and names of models or none, compares "
        "weights of float32, float16 and int8 on trained models instead",
    )
    bench.add_argument("--list", action="store_true", help="show groups and workloads, and measure nothing")
    bench.add_argument("--engines", metavar="A,B", help="besides fastrnn; default: those that are installed")
    bench.add_argument("--threads", type=int, default=1, help="processors, and threads of each engine (default 1)")
    bench.add_argument("--isa", help="limit fastrnn, and the peers that have such a setting, to an instruction set")
    bench.add_argument(
        "--weights", choices=parsers.WEIGHT_DTYPES, default="float32", help="type of fastrnn's (default float32)"
    )
    bench.add_argument("--seconds", type=float, default=0.3, help="for each engine and workload (default 0.3)")
    bench.add_argument(
        "--rounds", type=int, default=7, help="in which engines take turns; the fastest counts (default 7)"
    )
    bench.add_argument("--json", dest="json_path", type=Path, metavar="FILE", help="write the figures, too")
    bench.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="compare the figures with those of an older run"
    )
    bench.add_argument(
        "--markdown", type=Path, metavar="FILE", help="renew the table in it that compares with the machine's limits"
    )
    bench.add_argument("--plot", type=Path, metavar="DIRECTORY", help="draw pictures (needs matplotlib)")
    bench.add_argument("--sound", type=Path, metavar="FILE", help="for precision: a .wav of 16 kHz for silero's model")
    bench.set_defaults(run=_bench, json=False)


def _serve(arguments: argparse.Namespace) -> tuple[dict[str, Any], None]:
    from fastrnn.serve import process

    return process.run(arguments)


def _info(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    facts = info()
    blas = facts["blas"]
    rows = {
        "fastrnn": facts["version"],
        "instruction set": f"{facts['isa']} (detected {facts['isa_detected']}; can run {', '.join(facts['isas'])})",
        "of int8 weights": f"{facts['int8_isa']} (can run {', '.join(facts['int8_isas'])})",
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


def _bench(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from fastrnn.benchmark import command

    if arguments.list:
        return {}, command.listing()
    if arguments.groups[:1] == ["precision"]:
        return {}, _precision(arguments)
    if arguments.sound is not None:
        raise ValueError("--sound is given, but only precision reads a sound")
    text = command.bench(
        arguments.groups,
        engine_names=arguments.engines.split(",") if arguments.engines else None,
        threads=arguments.threads,
        isa=arguments.isa,
        weights=arguments.weights,
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        json_path=arguments.json_path,
        compare_path=arguments.compare,
        markdown_path=arguments.markdown,
        plot_directory=arguments.plot,
    )
    return {}, text


def _precision(arguments: argparse.Namespace) -> str:
    from fastrnn.benchmark import command

    others = {"engines": None, "weights": "float32", "compare": None, "plot": None}
    if given := [f"--{name}" for name, default in others.items() if getattr(arguments, name) != default]:
        raise ValueError(f"{' and '.join(given)} given, but precision has no such option")
    return command.compare_precision(
        arguments.groups[1:],
        threads=arguments.threads,
        isa=arguments.isa,
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        sound=arguments.sound,
        json_path=arguments.json_path,
        markdown_path=arguments.markdown,
    )


def _mnist(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from fastrnn.mnist import experiment, plot

    figure = None
    if arguments.plot is not None:
        figure = plot.new_figure()
        plot.check_place(arguments.plot, "--plot")
    results = experiment.run(arguments.batch, arguments.rounds, arguments.lengths)
    if figure is not None:
        plot.draw(figure, results, arguments.plot)
    return results, experiment.report(results)
