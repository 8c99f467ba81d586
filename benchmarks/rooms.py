"""The rooms of the code: lines, modules, functions, and which folder imports which.

    python benchmarks/rooms.py            tables, and whether folders import each other in a circle
    python benchmarks/rooms.py --mermaid  the graph of folders, as CONTRIBUTING.md shows it

Nothing is imported: the files are parsed. A folder stands for the modules directly in it; a
package's `__init__.py` counts as part of its folder.
"""

from __future__ import annotations

import ast
import graphlib
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("spaces", "evaluators", "search")


def modules() -> dict[str, Path]:
    """Dotted name below `paretoformer` -> its file."""
    files = (path for top in TOPS for path in sorted((ROOT / top).rglob("*.py")))
    return {_name(path): path for path in files}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(path: Path) -> str:
    return path.relative_to(ROOT).parent.as_posix()


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of this project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paretoformer."):
            base = str(node.module).removeprefix("paretoformer.")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def folder_graph() -> dict[str, Counter[str]]:
    """Folder -> imported folders, with the number of imports."""
    known = modules()
    graph: dict[str, Counter[str]] = defaultdict(Counter)
    for path in known.values():
        graph[folder_of(path)] += Counter(
            folder_of(known[name])
            for name in imports(path, known)
            if name in known and folder_of(known[name]) != folder_of(path)
        )
    return dict(graph)


def cycle(graph: dict[str, Counter[str]]) -> list[str]:
    """Folders that import each other in a cycle; empty if there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def function_lengths() -> list[int]:
    """Lines of every function, decorators and docstring included."""
    defs = (ast.FunctionDef, ast.AsyncFunctionDef)
    return sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, defs)
    )


def report() -> None:
    files = modules().values()
    lines: Counter[str] = Counter()
    for path in files:
        lines[folder_of(path)] += len(path.read_text().splitlines())
    count = Counter(map(folder_of, files))
    for folder in sorted(count):
        print(f"{folder:<24} {count[folder]:>3} modules {lines[folder]:>6} lines")
    for name, folders in (("src", ["src"]), ("benchmarks", ["benchmarks"]), ("tests", ["tests"])):
        found = [p for f in folders for p in (ROOT / f).rglob("*.py") if not p.is_symlink()]
        found = [p for p in found if p.resolve().is_relative_to(ROOT / name)]
        size = sum(len(path.read_text().splitlines()) for path in found)
        print(f"{name:<24} {len(found):>3} modules {size:>6} lines")
    print(f"{'in the three folders':<24} {len(files):>3} modules {sum(lines.values()):>6} lines")
    lengths = function_lengths()
    p90 = lengths[int(0.9 * len(lengths))]
    print(
        f"functions: {len(lengths)}, median {statistics.median(lengths):g} lines, p90 {p90}, "
        f"max {lengths[-1]}"
    )
    run = ROOT / "search" / "run.py"
    print(f"search/run.py imports {len(set(imports(run, modules())))} modules of this project")
    print("circle of folders:", " -> ".join(cycle(folder_graph())) or "none")


def reduced(graph: dict[str, Counter[str]]) -> dict[str, set[str]]:
    """The transitive reduction of the graph."""
    below: dict[str, set[str]] = {}
    for folder in graphlib.TopologicalSorter(graph).static_order():
        others = graph.get(folder, Counter())
        below[folder] = set(others).union(*(below[other] for other in others))
    return {
        folder: {target for target in others if not any(target in below[other] for other in others)}
        for folder, others in graph.items()
    }


def mermaid() -> None:
    """Print the reduced graph; an arrow points to the imported folder."""
    graph = reduced(folder_graph())
    print("graph TD")
    for top in reversed(TOPS):
        print(f'  subgraph {top}_room["{top}"]')
        for folder in sorted(name for name in graph if name.split("/")[0] == top):
            name = folder.partition("/")[2] or f"{top}/*.py"
            print(f'    {_id(folder)}["{name}"]')
        print("  end")
    for folder, others in sorted(graph.items()):
        for other in sorted(others):
            print(f"  {_id(folder)} --> {_id(other)}")


def _id(folder: str) -> str:
    return folder.replace("/", "_")


if __name__ == "__main__":
    mermaid() if "--mermaid" in sys.argv else report()
