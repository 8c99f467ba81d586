"""What is public, and what is installed."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import paretoformer

ROOT = Path(__file__).parent.parent


def test_public_names_are_pinned() -> None:
    assert paretoformer.__all__ == [
        "AttentionChoice",
        "Best",
        "Candidate",
        "HeadMask",
        "Measurement",
        "Outcome",
        "ParetoformerError",
        "compress",
        "load_best",
        "load_compressed",
        "load_front",
        "save_compressed",
        "search",
    ]
    for name in paretoformer.__all__:
        assert getattr(paretoformer, name).__name__.removeprefix("paretoformer.") == name
    assert set(paretoformer.__all__) <= set(dir(paretoformer))


@pytest.mark.parametrize("before", ["", "import paretoformer.search.run, paretoformer.search.cli"])
def test_search_is_callable_whatever_was_imported_before(before: str) -> None:
    script = f"""
import paretoformer as pf
{before}
try:
    pf.search("absent.toml")
except pf.ParetoformerError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "no study file absent.toml."


def test_listed_packages_are_those_there_are() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"paretoformer"}
    for top in ("search", "spaces", "evaluators"):
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join(("paretoformer", *init.parent.relative_to(ROOT).parts)))
    assert set(listed) == found


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after running `code`."""
    script = f"{code}\nimport sys; print(' '.join(m for m in sys.modules if '.' not in m))"
    output = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(output.stdout.split())


def test_reading_a_front_imports_neither_torch_nor_ray(example: Path) -> None:
    modules = imported_by(f"import paretoformer as pf; pf.load_front({str(example)!r})")
    assert not modules & {"torch", "ray", "optuna", "transformers"}


def test_spaces_and_evaluators_know_neither_ray_nor_optuna() -> None:
    modules = imported_by(
        "import paretoformer.spaces.space, paretoformer.spaces.persist,"
        "paretoformer.evaluators.evaluator, paretoformer.evaluators.metrics"
    )
    assert not modules & {"ray", "optuna"}


def modules() -> dict[str, Path]:
    """Module name -> its file; a package is named for its `__init__`."""
    found = {}
    for top in ("spaces", "evaluators", "search"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(("paretoformer", *name))] = path
    return found


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """Every module that a file names in an import, wherever the import stands in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in known else str(node.module)


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports."""
    files = modules()
    known = set(files)
    return {name: known & set(imports(path, known)) for name, path in files.items()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor behind `TYPE_CHECKING`, nor inside a function."""
    graph = import_graph()
    assert len(graph) > 50
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("spaces", "evaluators"), ("spaces", "search"), ("evaluators", "search")],
)
def test_lower_package_imports_nothing_of_an_upper_one(lower: str, upper: str) -> None:
    found = [
        f"{name} imports {other}"
        for name, others in import_graph().items()
        for other in sorted(others)
        if f"{name}.".startswith(f"paretoformer.{lower}.")
        and f"{other}.".startswith(f"paretoformer.{upper}.")
    ]
    assert not found


def test_worker_does_not_import_what_most_metrics_do_not_need() -> None:
    """Every point of a front is confirmed in a process of its own."""
    code = (
        "import sys, paretoformer.search.dispatch.worker, paretoformer.evaluators.evaluator; "
        "print([name for name in ('sklearn', 'pandas', 'datasets', 'optuna') "
        "if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_worker_that_measures_a_formula_does_not_import_torch() -> None:
    """So that tests and benchmarks of the loop start their workers fast."""
    assert "torch" not in imported_by(
        "import paretoformer.search.dispatch.worker, paretoformer.evaluators.formula"
    )
