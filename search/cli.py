"""The commands. Exit status: 0 done; 1 no answer; 2 the input is wrong, in one line on stderr."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from paretoformer.search.records.disk import room_on
from paretoformer.search.records.errors import (
    Interrupted,
    OtherMachineWarning,
    ParetoformerError,
    Stopped,
    UncheckedWarning,
    UserError,
)

if TYPE_CHECKING:
    from paretoformer.search.publish.best import Best

# torch, Ray and pandas are imported inside the commands, so that `--help` is fast.

app = typer.Typer(
    name="paretoformer",
    help="Find the Pareto-optimal compressed versions of a transformer for this machine, by "
    "measuring them: heads, attention, feed-forward widths, layers, runtimes and precisions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

UsageError: Any = typer.BadParameter.__base__
"""The error that Typer raises for a wrong command line; it is not a public name of Typer."""

RunArgument = Annotated[Path, typer.Argument(help="A run folder, as `search` wrote it.")]
MinimizeOption = Annotated[
    str | None,
    typer.Option(
        help="The metric to optimise.",
        show_default="latency_ms, or the timing that is an objective",
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        help="METRIC OP VALUE; may be repeated. VALUE is a number, or relative to the uncompressed "
        "model, dense: accuracy>=0.84, accuracy>=dense-0.01, latency_ms<=0.5*dense. Quote it: the "
        "shell reads > and < as redirections.",
        show_default="accuracy>=dense-0.01",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

F = TypeVar("F", bound=Callable[..., None])


def _command(function: F) -> F:
    """Register a command whose help is its docstring, escaped: `[model]` is not markup."""
    app.command(help=escape(function.__doc__ or ""))(function)
    return function


@_command
def search(
    study: Annotated[
        str,
        typer.Argument(
            help="A .toml file, or a built-in study: embedder, reviews, long-reviews; with --data, "
            "a fine-tuned model: a folder or a Hub id."
        ),
    ] = "embedder",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Examples of the model's task: a csv, tsv, jsonl, Parquet or txt file, or a Hub "
            "id. Task and columns are guessed; to choose them, use `init`.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="runs/<name of the study>")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Candidates to measure; overrides the file; may be larger on a resumed run."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the file.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="Concentrate on candidates that satisfy this, such as 'memory_mb<=50'; may be "
            "repeated; overrides search.require.",
            show_default="that of the task",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time for the whole study, instead of a number of trials.",
            show_default="20, if the study says neither",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check everything and print the plan, with an estimate of the time.",
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster; default: a local one for this command."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Log the front to MLflow, for example at http://localhost:5000 or "
            "sqlite:///mlflow.db.",
        ),
    ] = None,
) -> None:
    """Run a study, or resume it where it was interrupted.

    A model with its data needs no study file; the run folder keeps one, study.toml:

        paretoformer search my-model --data examples.csv

    A study file needs a model and data; everything else has a default.
    `paretoformer init MODEL DATA` writes one with all of them:

        [model]
        path = "my-model"           # local folder or Hub id
        [data]
        path = "examples.csv"       # or jsonl, Parquet, a Hub id
        text = "text"
        label = "label"
        search_examples = 500       # for each candidate; +-0.03 at 0.85
        confirm_examples = 1000     # for the front; +-0.02
        [target]
        device = "cpu"
        sequence_length = "data"    # or a number of tokens

    The built-in studies need pip install 'paretoformer[demo]'.
    """
    from paretoformer.search.run import search as run_search

    overrides: dict[str, Any] = {
        "trials": trials,
        "seed": seed,
        "require": require or (),
        "minutes": minutes,
    }
    if dry_run:
        from paretoformer.search.first_screen import planned
        from paretoformer.search.opening import requested

        typer.echo(planned(*requested(study, data, out, typer.echo, **overrides)))
        return
    try:
        folder = run_search(study, data=data, out=out, address=address, mlflow=mlflow, **overrides)
    except Interrupted as interrupted:  # Typer would end without a message
        raise Stopped(interrupted) from None
    _print_result(folder)


@_command
def init(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder or Hub id of a fine-tuned model.")
    ],
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A csv, tsv, jsonl, Parquet or txt file, or a Hub id."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="<name of the model>.toml")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Column of the second text.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the label; '' if there are no labels.")
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="Encoding of a data file that is not UTF-8.")
    ] = "utf-8",
) -> None:
    """Write a study file for this model and data, with every key, its default and its meaning.

    Columns that are not given are guessed from the names in the head of the file.
    """
    from paretoformer.search.study.template import init as write

    file, columns = write(
        model, data, out, text=text, text_pair=text_pair, label=label, encoding=encoding
    )
    typer.echo(f"Written: {file}; {columns}.")
    typer.echo(f"Check it: paretoformer search {file} --dry-run")


@_command
def front(
    run: RunArgument,
    as_json: JsonOption = False,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw it.")] = False,
) -> None:
    """Print the front of a finished run: the uncompressed model (dense), then every point."""
    from paretoformer.search.records.parquet import read_front

    frame, facts = read_front(run)
    if as_json:
        rows = json.loads(frame.to_json(orient="records", double_precision=15))
        for row in rows:
            row["candidate"] = json.loads(row["candidate"])
        typer.echo(json.dumps(rows, indent=2))
        return
    from paretoformer.search.report.cells import print_front
    from paretoformer.search.report.terminal_plot import terminal_plot

    print_front(frame, facts)
    if plot:
        typer.echo(terminal_plot(frame, facts, shutil.get_terminal_size().columns))


@_command
def best(
    run: RunArgument,
    minimize: MinimizeOption = None,
    require: RequireOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the point that is best in one metric among those that satisfy every requirement."""
    from paretoformer.search.publish.best import load_best

    found = load_best(run, minimize, require)
    if as_json:
        typer.echo(json.dumps(_as_dict(found), indent=2))
    else:
        _print_best(found)


@_command
def export(
    run: RunArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    minimize: MinimizeOption = None,
    require: RequireOption = None,
) -> None:
    """Write the best point as a model that `paretoformer.load_compressed(DIR)` opens.

    The folder holds config, weights (safetensors), the files of its runtime (such as
    onnx/model.onnx), the candidate, the tokenizer, and a card with what was measured.
    """
    from paretoformer.search.publish.best import load_best
    from paretoformer.search.publish.export import export_best

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not an empty folder: choose another.")
    found = load_best(run, minimize, require)
    parameters = export_best(found, directory)
    _print_best(found)
    typer.echo(f"\nWritten to {directory}: {parameters:,} parameters.")
    typer.echo(
        f"Load it: import paretoformer as pf; model = pf.load_compressed({str(directory)!r})"
    )


@_command
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
) -> None:
    """Measure an exported model again on this machine, and compare with its published numbers.

    Needs the study's model and data where they were.
    """
    from paretoformer.search.publish.verify import verify as measure_again
    from paretoformer.search.report.cells import print_table, verified_table
    from paretoformer.search.report.display import Display

    with Display() as display:
        found = measure_again(directory, display.progress)
    print_table(verified_table(found.measured, found.here))
    before, low, high = found.measured["speedup"]
    typer.echo(
        f"Speed-up over the uncompressed torch model: {found.speedup:.2f}x here; "
        f"{before:.2f}x ({low:.2f} to {high:.2f}) when it was published."
    )


@_command
def report(run: RunArgument) -> None:
    """Write RUN/report.html: plots of the front, and what each point keeps and gains."""
    from paretoformer.search.records.run_folder import RunFolder
    from paretoformer.search.report.page import write_report

    typer.echo(f"Written: {write_report(RunFolder(run))}")


@_command
def techniques(as_json: JsonOption = False) -> None:
    """List the attention mechanisms, runtimes and other techniques available on this machine."""
    from paretoformer.search.report.cells import catalogue_table, print_table
    from paretoformer.spaces.axes import axes

    catalogues = {axis.name: axis.catalogue() for axis in axes()}
    if as_json:
        rows = [{"axis": name, **row} for name, entries in catalogues.items() for row in entries]
        typer.echo(json.dumps(rows, indent=2))
        return
    for name, rows in catalogues.items():
        if rows:
            print_table(catalogue_table(name, rows))
    typer.echo(
        "A search tries these parameters if the texts are long enough to benefit. "
        'In a study file: attention = ["full", "window"], runtime = ["torch", "onnxruntime:int8"].'
    )


@_command
def dashboard(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
) -> None:
    """Open optuna-dashboard on this run; works during a search, too."""
    from paretoformer.search.report.dashboard import serve

    serve(run, host, port)


def main() -> None:
    """The entry point: errors end in one line and the right exit status."""
    # Deprecation warnings of libraries are for developers, who see them in the tests.
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", OtherMachineWarning)
    warnings.simplefilter("default", UncheckedWarning)
    warnings.showwarning = _show_warning
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with room_on(Path()):
            status = app(standalone_mode=False)
    except ParetoformerError as error:
        status = _fail(str(error), error.status)
    except UsageError as error:
        status = _fail(f"{error.format_message()} See --help.", 2)
    except OSError as error:  # a folder that cannot be written
        status = _fail(str(error), 2)
    sys.exit(status if isinstance(status, int) else 0)


def _print_result(folder: Path) -> None:
    """The end of `search`: the front, notes on it, and the answer as the last line."""
    from paretoformer.search.publish.summary import answer
    from paretoformer.search.records.parquet import read_front
    from paretoformer.search.report.cells import optimism, print_front
    from paretoformer.search.report.evidence import shrinkage

    frame, facts = read_front(folder)
    print_front(frame, facts)
    seen_better = optimism(shrinkage(frame, facts), facts)
    typer.echo(f"Optimism of the search (median over its points): {seen_better}")
    typer.echo(f"Plots: {folder / 'report.html'}")
    typer.echo(answer(folder))


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """One line on stderr, without the place in the code."""
    typer.echo(f"paretoformer: note: {' '.join(str(message).split())}", err=True)


def _fail(message: str, status: int) -> int:
    line = " ".join(message.split())
    typer.echo(line if line.startswith("Interrupted") else f"paretoformer: {line}", err=True)
    return status


def _as_dict(found: Best) -> dict[str, Any]:
    return {
        "trial": found.trial,
        "candidate_id": found.candidate.id,
        "candidate": json.loads(found.candidate.to_json()),
        "speedup": found.speedup,
        "disturbed": found.disturbed,
        "metrics": {
            name: {
                "value": _finite(m.value),
                "low": _finite(m.low),
                "high": _finite(m.high),
                "unit": m.unit,
                "dense": _finite(found.dense[name].value),
            }
            for name, m in found.metrics.items()
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print_best(found: Best) -> None:
    from rich.table import Table

    from paretoformer.search.report.cells import described, number, print_table

    name = "the uncompressed model" if found.candidate.is_dense else f"trial {found.trial}"
    table = Table(title=f"best: {name}, {found.speedup:.2f}x", title_justify="left")
    for column in ("metric", "value", "95% interval", "dense", "unit"):
        table.add_column(column, justify="left" if column in ("metric", "unit") else "right")
    for key, m in found.metrics.items():
        interval = "exact" if m.low == m.high else f"{number(m.low)} to {number(m.high)}"
        table.add_row(key, number(m.value), interval, number(found.dense[key].value), m.unit)
    print_table(table)
    typer.echo(f"keeps: {described(found.candidate)}; candidate {found.candidate.id}")
    for text in filter(None, (found.gain, found.warning)):
        typer.echo(text)


if __name__ == "__main__":
    main()
