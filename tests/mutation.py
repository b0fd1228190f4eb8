"""Changes one expression or statement of a room of the package at a time, and asks whether a test notices.

    python tests/mutation.py nn --count 80 tests/nn tests/methods > log
    python tests/mutation.py nn --again log tests/nn                        # those that lived, after new tests

A change is one of: a comparison or an operation becomes its neighbour, a number grows by one, a condition turns round,
a keyword is left out, a statement that only acts is left out, None is returned. The tests first run once as they are,
which tells those that reach each line; only these run on a change there. What survives is printed; some of it changes
nothing that could be seen.
"""

import argparse
import ast
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
NEIGHBOURS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr,
}  # fmt: skip
LEAST_SECONDS = 20  # that the tests of a change may take; more counts as noticed


class Change(NamedTuple):
    file: Path  # in the repository
    line: int
    end: int  # the last line
    before: str
    after: str
    text: bytes  # of the whole file
    at_import: bool  # it stands in no function

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.before.split())}  ->  {' '.join(self.after.split())}"


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand for a node."""
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            (copy := deepcopy(node)).ops[k] = NEIGHBOURS[type(op)]()  # type: ignore[call-overload]
            yield copy
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in NEIGHBOURS:
        (copy := deepcopy(node)).op = NEIGHBOURS[type(node.op)]()  # type: ignore[assignment]
        yield copy
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Call):
        for k in range(len(node.keywords)):
            del (copy := deepcopy(node)).keywords[k]
            yield copy
    elif isinstance(node, ast.Raise | ast.Expr):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield ast.Pass()
    elif isinstance(node, ast.Return) and not (node.value is None or isinstance(node.value, ast.Constant)):
        yield ast.Return(ast.Constant(None))


def nodes(tree: ast.AST, at_import: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Those that run, and whether when the file is imported: no annotations, no imports for a type checker, no
    assertions."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns") or isinstance(tree, ast.Assert | ast.JoinedStr):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.AST):
                inside = name == "body" and isinstance(tree, ast.FunctionDef | ast.Lambda)
                yield node, at_import and not inside
                yield from nodes(node, at_import and not inside)


def changes(file: Path) -> Iterator[Change]:
    """All changes of a file."""
    text = (ROOT / file).read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, at_import in nodes(ast.parse(text)):
        for other in changed(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            at, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            told = ast.unparse(other)
            whole = text[:at] + (f"({told})" if isinstance(node, ast.expr) else told).encode() + text[end:]
            yield Change(file, node.lineno, node.end_lineno, text[at:end].decode(), told, whole, at_import)


def in_child(tree: Path, words: Sequence[str], plugin: Any = None, seconds: float = 3600) -> int:
    """Run pytest in `tree` in a process that has all libraries, but not the package, in its memory; its exit code."""
    if (child := os.fork()) == 0:
        os.setsid()
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", *words], plugins=[plugin] if plugin else [])))
    deadline = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(found[1])


class Reached:
    """Writes which lines of the room each test reaches, and its seconds."""

    def __init__(self, room: Path, out: Path) -> None:
        self.room, self.out, self.lines = str(room), out, set[str]()

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.room):
            return None
        if event == "line":
            self.lines.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.lines, began = set(), time.monotonic()
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            with self.out.open("a") as out:
                print(item.nodeid, time.monotonic() - began, *self.lines, sep="\t", file=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", help="a folder or file under eisnn/")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=Path, help="what this printed before: only the changes that lived")
    args = parser.parse_args()
    room = ROOT / "eisnn" / args.room
    files = [file.relative_to(ROOT) for file in ([room] if room.is_file() else sorted(room.rglob("*.py")))]
    everything = [change for file in files for change in changes(file)]
    chosen = random.Random(args.seed).sample(everything, min(args.count, len(everything)))
    if args.again:
        lived = {re.sub(r":\d+", "", line[6:], count=1).partition("   [")[0] for line in args.again.open()}
        chosen = [change for change in everything if str(change) in lived]

    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", TRITON_INTERPRET="1")
    sys.dont_write_bytecode = True
    for library in ("torch", "numpy", "scipy.stats", "scipy.optimize", "hypothesis", "pydantic", "matplotlib.figure"):
        __import__(library)
    with tempfile.TemporaryDirectory() as scratch:
        tree, out = Path(scratch) / "tree", Path(scratch) / "reached"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache"))
        if code := in_child(tree, args.tests, Reached(tree / "eisnn" / args.room, out)):
            raise SystemExit(f"the tests fail as they are (exit code {code})")
        reached, seconds = defaultdict[str, list[str]](list), dict[str, float]()
        for line in out.read_text().splitlines():
            test, took, *lines = line.split("\t")
            seconds[test] = float(took)
            for at in lines:
                reached[at].append(test)
        killed = 0
        for change in chosen:
            file, lines = tree / change.file, range(change.line, change.end + 1)
            tests = {test for line in lines for test in reached[f"{file}:{line}"]}
            words, code = sorted(seconds if change.at_import else tests, key=seconds.__getitem__), 0
            if words:
                original = file.read_bytes()
                file.write_bytes(change.text)
                code = in_child(tree, words, seconds=LEAST_SECONDS + 3 * sum(seconds[test] for test in words))
                file.write_bytes(original)
            killed += code != 0
            if code == 0:
                where, told = str(change).split(": ", 1)
                print(f"LIVES {where}:{change.line}: {told}   [{len(words)} tests]", flush=True)
    print(f"{args.room}: {len(everything)} changes, {len(chosen)} tried, {killed} noticed, {len(chosen) - killed} live")


if __name__ == "__main__":
    main()
