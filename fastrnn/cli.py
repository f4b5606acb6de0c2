"""The command line: ``fastrnn info`` and ``fastrnn demo``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
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
    for command in (about, demo):
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
