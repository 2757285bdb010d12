"""Do the tests notice if a comparison, a constant or a return value changes?

    python -m bench.mutations --seed 0 --number 60 --packages commands,config,results,tracking --jobs 2

Draws places from all comparisons, constants and return values of the packages, changes one at a time in a copy of the
repository, and runs the tests that cover it: the fast ones of the mirrored folder, then those of related folders, then
the slow ones of both, until one fails. Docstrings, annotations, decorators and text of messages are left alone. Prints
a Markdown table; the exit code is 1 if less than 90% of the changes are caught. At most an hour on two cores.

With --coverage .coverage, the data of `pytest --cov --cov-context=test`, the tests that have run the changed line come
first, those that run the fewest lines in front, then the fast ones of the mirrored folder, and the run that wrote the
data stands for the one without a change. Of lines that only an import has run, the tests of the file come first, and
all steps follow. `--most 40` is a quick first pass, which tries only the smallest of them: what survives it may still
be caught by the others (`--only` with the numbers of the survivors, without `--most`).
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from coverage import CoverageData

ROOT = Path(__file__).parents[1]
SOURCES = Path("platform/muralab")
RELATED = {
    "commands": ("cli", "tune", "registry"),
    "config": ("cli", "commands", "tune"),
    "results": ("commands", "report", "registry"),
    "tracking": ("results", "commands"),
}
"""Package -> folders of tests, besides the mirrored one, that run its code."""
TARGET = 0.9
TIMEOUT_S = 1200.0
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.In: ast.NotIn, ast.Is: ast.IsNot,
    ast.NotEq: ast.Eq, ast.LtE: ast.Lt, ast.GtE: ast.Gt, ast.NotIn: ast.In, ast.IsNot: ast.Is,
}  # fmt: skip
MESSAGES = {"print", "warn", "info", "error", "warning", "debug"}
"""Functions whose text arguments are messages."""
WORDS_OF_PROSE = 3
"""A string of so many words is text for people: help, a message, a title."""


@dataclass(frozen=True)
class Change:
    """One possible change of a syntax tree: a new value for one field of one node."""

    shown: ast.expr
    """The expression that changes."""
    after: ast.expr
    node: ast.AST
    field: str
    value: object


def find_changes(node: ast.AST, *, in_message: bool = False) -> Iterator[Change]:
    """All possible changes below a node, in a fixed order."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr() | ast.Subscript(value=ast.Name(id="Literal")):
            return
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return
        case ast.Raise():
            in_message = True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in MESSAGES:
            in_message = True
        case ast.Compare(left, operators, comparators):
            for place, operator in enumerate(operators):
                changed = [*operators[:place], OPPOSITE[type(operator)](), *operators[place + 1 :]]
                yield Change(node, ast.Compare(left, changed, comparators), node, "ops", changed)
        case ast.Constant(value) if (other := change_constant(value, in_message=in_message)) is not None:
            yield Change(node, ast.Constant(other), node, "value", other)
        case ast.Return(ast.expr() as result) if ast.unparse(result) != "None":
            is_condition = isinstance(result, ast.Compare | ast.BoolOp)
            after = ast.UnaryOp(ast.Not(), result) if is_condition else ast.Constant(None)
            yield Change(result, after, node, "value", after)
    for child in _children(node):
        yield from find_changes(child, in_message=in_message)


def change_constant(value: object, *, in_message: bool) -> bool | int | float | str | None:
    """Negate a bool, add 1 to a number, lengthen a string; None for anything else and for text for people."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    is_prose = in_message or len(str(value).split()) >= WORDS_OF_PROSE
    return f"{value}X" if isinstance(value, str) and not is_prose else None


def _children(node: ast.AST) -> Iterable[ast.AST]:
    """The children of a node, without annotations and decorators."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]
        case ast.ClassDef():
            return node.body
        case ast.AnnAssign():
            return [node.value] if node.value else []
    return ast.iter_child_nodes(node)


@dataclass(frozen=True)
class Mutation:
    """A change of a file, by its number among all changes of the file."""

    file: Path
    number: int

    @property
    def package(self) -> str:
        """The package it belongs to."""
        return self.file.relative_to(SOURCES).parts[0]

    @property
    def tests(self) -> list[Path]:
        """Where tests of the file itself are, if there are any; and those of names that the docs list."""
        mirrored = Path("tests") / self.file.relative_to(SOURCES)
        return [mirrored.with_name(f"test_{mirrored.name}"), Path("tests/test_docs.py")]

    def read(self, root: Path) -> tuple[int, str, str]:
        """The line, the place and the change as cells of the table, and the source of the changed file."""
        tree = ast.parse((root / self.file).read_text(encoding="utf-8"))
        change = list(find_changes(tree))[self.number]
        before, after = (" ".join(ast.unparse(one).split())[:60] for one in (change.shown, change.after))
        place = f"{self.file.relative_to(SOURCES)}:{change.shown.lineno}"
        setattr(change.node, change.field, change.value)
        cells = f"{place} | `{before}` -> `{after}`".replace("||", "\\|\\|")
        return change.shown.lineno, cells, ast.unparse(ast.fix_missing_locations(tree))


def list_mutations(packages: Sequence[str]) -> list[Mutation]:
    """All mutations of the packages."""
    files = [path for name in packages for path in sorted((ROOT / SOURCES / name).rglob("*.py"))]
    return [
        Mutation(path.relative_to(ROOT), number)
        for path in files
        for number, _ in enumerate(find_changes(ast.parse(path.read_text(encoding="utf-8"))))
    ]


def list_runs(package: str) -> Iterator[list[str]]:
    """Arguments of pytest for each step, the cheapest first."""
    own, related = f"tests/{package}", [f"tests/{name}" for name in RELATED.get(package, ())]
    yield ["-m", "not slow and not long", own]
    yield ["-m", "not slow and not long", *related]
    yield ["-m", "slow and not long", own, *related]


def covering_tests(coverage: CoverageData | None, file: Path, line: int) -> tuple[list[str], bool]:
    """The tests that have run a line, or, of one that only imports have run, any line of its file; small ones first.

    Returns:
        The tests, and whether they have run the line itself.
    """
    measured = next((name for name in coverage.measured_files() if name.endswith(f"/{file}")), "") if coverage else ""
    if coverage is None or not measured:
        return [], False
    lines = coverage.contexts_by_lineno(measured)
    own = set(lines.get(line, [])) - {""}
    tests = {_test_of(context) for context in own or {one for contexts in lines.values() for one in contexts} - {""}}
    lines_run = count_lines(coverage)
    return sorted(tests, key=lambda test: (lines_run[test], test)), bool(own)


@functools.cache
def count_lines(coverage: CoverageData) -> Counter[str]:
    """Test -> how many lines of the platform it has run: few in the tests that are quick and meant for one thing."""
    return Counter(
        _test_of(context)
        for file in coverage.measured_files()
        for contexts in coverage.contexts_by_lineno(file).values()
        for context in contexts
    )


def _test_of(context: str) -> str:
    return context.split("|")[0]


def run_tests(root: Path, arguments: Sequence[str]) -> str | None:
    """The first test that fails, or None if all pass."""
    environment = os.environ | {"PYTHONPATH": f"{root / 'platform'}{os.pathsep}{root}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output = process.communicate(timeout=TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that fixtures stop their servers
            process.communicate()
            return f"no result within {TIMEOUT_S:.0f} s"
    if process.returncode in (0, 5):  # 5: no tests selected
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return failed[1] if failed else output.strip().splitlines()[-1]


def copy_repository(folder: Path) -> Path:
    """A clone of the checkout, with the uncommitted changes of the files that git tracks."""
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def check_mutation(
    mutation: Mutation, copies: SimpleQueue[Path], coverage: CoverageData | None, most: int | None
) -> tuple[str, str | None]:
    """Cells of the table for a mutation, and the first test that fails with it, or None; `most`: see `main`."""
    root = copies.get()
    original = (root / mutation.file).read_text(encoding="utf-8")
    try:
        line, cells, source = mutation.read(root)
        (root / mutation.file).write_text(source, encoding="utf-8")
        tests, have_run_it = covering_tests(coverage, mutation.file, line)
        listed = root / ".covering-tests"
        listed.write_text("\n".join(tests), encoding="utf-8")
        if most is not None:
            mirrored = [str(one) for one in mutation.tests if (root / one).is_file() and not have_run_it]
            listed.write_text("\n".join([*mirrored, *tests[:most]]), encoding="utf-8")
            return cells, run_tests(root, ["-m", "not long", f"@{listed.name}"])
        runs = [["-m", marker, f"@{listed.name}"] for marker in ("not slow and not long", "slow and not long") if tests]
        everything = list(list_runs(mutation.package))
        runs += everything[:1] if have_run_it else everything
        return cells, next((failed for run in runs if (failed := run_tests(root, run))), None)
    finally:
        (root / mutation.file).write_text(original, encoding="utf-8")
        copies.put(root)


def check_baseline(packages: Sequence[str], root: Path) -> None:
    """Exit if a fast test fails without any mutation."""
    folders = {f"tests/{name}" for package in packages for name in (package, *RELATED.get(package, ()))}
    if failed := run_tests(root, ["-m", "not slow and not long", *sorted(folders)]):
        sys.exit(f"{failed} fails without a mutation: fix it first.")


def main() -> None:
    """Draw mutations, run the tests on each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=60, help="number of mutations")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first ones, which an earlier call has tried")
    parser.add_argument("--only", default="", help="comma-separated numbers, from 1, of those to try")
    parser.add_argument("--most", type=int, help="run at most so many of the tests that have run the changed line")
    parser.add_argument("--packages", default=",".join(RELATED), help="comma-separated packages of muralab")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at a time")
    parser.add_argument("--coverage", type=Path, help="data of a run of all tests with --cov-context=test")
    options = parser.parse_args()
    packages = options.packages.split(",")
    coverage = CoverageData(str(options.coverage)) if options.coverage else None
    if coverage is not None:
        coverage.read()
    everything = list_mutations(packages)
    numbered = enumerate(random.Random(options.seed).sample(everything, min(options.number, len(everything))), 1)
    wanted = {int(number) for number in filter(None, options.only.split(","))}
    drawn = [one for number, one in numbered if number > options.skip and (not wanted or number in wanted)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            copies.put(copy_repository(Path(folder) / str(number)))
        if coverage is None:
            check_baseline(packages, Path(folder) / "0")
        caught = 0
        print("| place | mutation | caught by |\n|---|---|---|", flush=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            for cells, failed in pool.map(lambda one: check_mutation(one, copies, coverage, options.most), drawn):
                caught += failed is not None
                print(f"| {cells} | {failed or '**survived**'} |", flush=True)
    left_out = options.number - len(drawn)
    skipped = f"{left_out} left out, " if left_out else ""
    drawing = f"{skipped}drawn from {len(everything):,} with seed {options.seed}"
    print(f"\n{caught} of {len(drawn)} caught, {drawing}; {(time.monotonic() - started) / 60:.0f} minutes.")
    sys.exit(0 if caught >= TARGET * len(drawn) else 1)


if __name__ == "__main__":
    main()
