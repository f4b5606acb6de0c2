"""Write the C library as two files, fastrnn.c and fastrnn.h, which compile with ``cc -O2 -c fastrnn.c``.

    python tools/single_file.py FOLDER

All of fastrnn/core is in fastrnn.c, headers at their first use. Names that several files have of their own
(``static``, types, macros) get the name of their file as a prefix. The kernels are there once for each instruction
set, with its name at the end of theirs; which one runs is decided at run time. Needs a C compiler (CC, or cc), whose
preprocessor lists the names of functions that macros make.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "fastrnn" / "core"
KERNELS = CORE / "kernels"
HEADER = ROOT / "include" / "fastrnn.h"

TOP = """\
/* fastrnn {version}: the C library as one file, made by tools/single_file.py of its sources. fastrnn.h is its manual.
 *
 *     cc -O2 -c fastrnn.c        and link with -lm -pthread
 *
 * Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* -std=c11 hides POSIX from the system's headers */
#endif

/* A product and a sum are fused where the source says so, and nowhere else: results must not depend on the compiler. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

/* The system's headers come before the pragma below, which would hide what they declare. */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if !defined(_WIN32)
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#if defined(__GNUC__) && !defined(_WIN32)
#pragma GCC visibility push(hidden) /* of all but what fastrnn.h declares */
#endif
"""

#: The instruction sets that can be a build's only one, by numbers, as the preprocessor does not compare names.
NUMBERS = {"avx512": 1, "avx2": 2, "neon": 3, "scalar": 4}

TOP += "\n#define FR_NUMBER_OF(isa) FR_NUMBER_OF_NAME(isa)\n#define FR_NUMBER_OF_NAME(isa) FR_NUMBER_##isa\n"
TOP += "".join(f"#define FR_NUMBER_{isa} {number}\n" for isa, number in NUMBERS.items())

BOTTOM = """
#if defined(__GNUC__) && !defined(_WIN32)
#pragma GCC visibility pop
#endif
"""

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)".*\n', re.MULTILINE)
#: Comments, strings and characters, in which nothing is renamed.
NO_CODE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
#: What a file defines for itself: functions and objects, types, enumerators, macros.
FUNCTION = re.compile(r"^(?:static|FR_INLINE)\b[^;={}()]*?\b(\w+)\s*(?:\(|\[|=|;)", re.MULTILINE)
OBJECT = re.compile(r"^static\b[^;={}]*?\b(\w+)\[[^;{}]*=", re.MULTILINE)
TYPE = re.compile(
    r"^(?:\}\s*(\w+);|typedef[^{};]*?\b(\w+)(?:\([^;]*)?;)|^(?:typedef )?(?:struct|enum|union) (\w+) \{", re.MULTILINE
)
ENUM = re.compile(r"^enum (?:\w+ )?\{(.*?)\}", re.MULTILINE | re.DOTALL)
MACRO = re.compile(r"^\s*#\s*define\s+(\w+)", re.MULTILINE)


#: Functions of the system's headers, which some files include and others do not.
SYSTEM = {"raise"}


def code_of(text: str) -> str:
    return re.sub(r"__attribute__\s*\(\(.*?\)\)", "", NO_CODE.sub(" ", text))


def members(text: str) -> set[str]:
    """Names of the members of structs, pointers to functions included."""
    bodies = re.findall(r"\bstruct (?:\w+ )?\{(.*?)\}", code_of(text), re.DOTALL)
    return {
        name
        for body in bodies
        for name in re.findall(r"(\w+)\s*(?:\[[^\]]*\]\s*)?[;,]|\(\*(?:const )?(\w+)\)", body)
        for name in name
        if name
    }


def own_names(text: str) -> set[str]:
    code = code_of(text)
    names = {name for found in TYPE.findall(code) for name in found if name}
    names |= {*FUNCTION.findall(code), *OBJECT.findall(code)}
    for body in ENUM.findall(code):
        names |= set(re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", body.strip()))
    return {name for name in names if name not in ("const", "void", "sizeof") and not name.startswith("__")}


def rename(text: str, names: dict[str, str]) -> str:
    """Replace names in code, but not those of members: after a dot or an arrow, and in structs of the text itself."""
    if not names:
        return text
    own = members(text)
    either = [name + (r"(?=\()" if name in own else r"\b") for name in sorted(names)]
    word = re.compile(rf"(?<![\w.])(?<!->)({'|'.join(either)})")
    parts, end = [], 0
    for match in [*NO_CODE.finditer(text), None]:
        start = match.start() if match else len(text)
        parts.append(word.sub(lambda found: names[found[1]], text[end:start]))
        if match:
            parts.append(match[0])
            end = match.end()
    return "".join(parts)


def is_of_a_table(path: Path) -> bool:
    """Whether a file is compiled once for each instruction set."""
    shared = {"kernels.h", "target.h", "isa_list.h"}
    return path.parent == KERNELS and path.name not in shared and not path.name.startswith("kernels_")


class Writer:
    def __init__(self) -> None:
        self.done: set[Path] = set()
        sources = [path for path in sorted(CORE.rglob("*.c")) if path.suffixes != [".inc", ".c"]]
        self.kernels = [path for path in sources if path.parent == KERNELS]
        self.others = [path for path in sources if path.parent != KERNELS and path != CORE / "probe.c"]  # for Python
        counts = Counter(name for path in self.others for name in own_names(path.read_text()))
        shared = {name for path in CORE.rglob("*.h") for name in own_names(path.read_text()) if not is_of_a_table(path)}
        self.members = {name for path in CORE.rglob("*.h") for name in members(path.read_text())}
        self.twice = {name for name, count in counts.items() if count > 1 or name in SYSTEM} - shared

    def expand(self, path: Path, again: bool = False) -> str:
        """A file with the files that it includes; again: also those that were there before."""
        text = path.read_text()

        def replace(match: re.Match[str]) -> str:
            target = (path.parent / match[1]).resolve()
            if not target.exists():
                target = HEADER if match[1] == "fastrnn.h" else target
            if target == HEADER:
                return '#include "fastrnn.h"\n' if not self.seen(target) else ""
            if is_of_a_table(target):
                return self.expand(target, again) if again and not self.seen(target) else ""
            return "" if self.seen(target) else self.expand(target)

        return INCLUDE.sub(replace, text)

    def seen(self, path: Path) -> bool:
        found = path in self.done
        self.done.add(path)
        return found

    def part(self, path: Path) -> str:
        """One of the files that are not kernels."""
        text = re.sub(r"^#define _(POSIX_C|GNU)_SOURCE.*\n", "", path.read_text(), flags=re.MULTILINE)
        prefix = re.sub(r"\W", "_", path.relative_to(CORE).with_suffix("").as_posix())
        names = {name: f"{prefix}_{name}" for name in own_names(text) & self.twice}
        body = rename(INCLUDE.sub("", text), names)
        macros = "".join(f"#undef {name}\n" for name in dict.fromkeys(MACRO.findall(code_of(text))))
        headers = "".join(self.headers(path))
        return f"{headers}\n/* ==== {path.relative_to(CORE)} ==== */\n\n{body}\n{macros}"

    def headers(self, path: Path) -> list[str]:
        found = []
        for name in INCLUDE.findall(path.read_text()):
            target = HEADER if name == "fastrnn.h" else (path.parent / name).resolve()
            if not self.seen(target):
                found.append('#include "fastrnn.h"\n' if target == HEADER else self.expand(target))
        return found

    def table(self, path: Path, made_by_macros: set[str]) -> str:
        """The kernels of one instruction set."""
        isa = path.stem.removeprefix("kernels_")
        headers = "".join(self.headers_of_table(path))
        self.done = {target for target in self.done if not is_of_a_table(target)}
        body = self.expand(path, again=True)
        names = {name: f"{name}_{isa}" for name in own_names(body)} | {
            "real": f"real_{isa}",
            "vf": f"vf_{isa}",
            "vi": f"vi_{isa}",
        }
        pasted = sorted(
            (made_by_macros | names.keys()) - self.members
        )  # by macros, also some that are written out as well
        defined = "".join(f"#define {name} {name}_{isa}\n" for name in pasted)
        macros = [*dict.fromkeys(MACRO.findall(code_of(body))), *pasted]
        undefined = "".join(f"#undef {name}\n" for name in macros)
        whole = f"{defined}{rename(body, names)}\n{undefined}"
        return f"{headers}\n/* ==== {path.relative_to(CORE)} ==== */\n\n#if {condition(isa)}\n{whole}#endif\n"

    def headers_of_table(self, path: Path) -> list[str]:
        found = []
        for name in INCLUDE.findall(path.read_text()):
            target = (path.parent / name).resolve()
            if not is_of_a_table(target) and not self.seen(target):
                found.append(self.expand(target))
        return found


def condition(isa: str) -> str:
    """Whether a build has the kernels of an instruction set; `scalar_f64` is the table for double."""
    if isa == "scalar_f64":
        return "!defined(FASTRNN_ONLY_FLOAT32)"
    if isa not in NUMBERS:  # of int8 weights alone
        return "!defined(FASTRNN_ONLY_ISA) && !defined(FASTRNN_ONLY_FLOAT32)"
    return f"!defined(FASTRNN_ONLY_ISA) || FR_NUMBER_OF(FASTRNN_ONLY_ISA) == {NUMBERS[isa]}"


def made_by_macros() -> set[str]:
    """Names of the kernels' own functions and tables, also of those that macros make."""

    def names(path: Path) -> set[str]:
        command = [*shlex.split(os.environ.get("CC", "cc")), "-E", "-P", f"-I{ROOT / 'include'}", str(path)]
        text = code_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        functions = re.findall(r"\bstatic\b[^;={}()]*?\b(\w+)\s*\(", text)
        return {*functions, *re.findall(r"\bstatic\b[^;={}]*?\b(\w+)\[", text)}

    return names(KERNELS / "kernels_scalar.c") - names(KERNELS / "target.h") - {"const"}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    writer, pasted = Writer(), made_by_macros()
    header = HEADER.read_text()
    version = re.search(r'#define FASTRNN_VERSION "(.+)"', header)[1]  # type: ignore[index]
    parts = [TOP.replace("{version}", version)]
    parts += [writer.part(path) for path in writer.others]
    parts += [writer.table(path, pasted) for path in writer.kernels]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fastrnn.c").write_text("\n".join([*parts, BOTTOM]))
    (folder / "fastrnn.h").write_text(header)


if __name__ == "__main__":
    main()
