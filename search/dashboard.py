"""optuna-dashboard on the storage of a run."""

from __future__ import annotations

from pathlib import Path

import typer

from paretoformer.search.errors import RunError, UserError
from paretoformer.search.results.run_folder import RunFolder
from paretoformer.search.study.optuna_study import open_storage
from paretoformer.search.study.spec import parse_spec


def serve(run: str | Path, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        RunError: no run there. UserError: the address cannot be listened on.
    """
    import optuna_dashboard

    folder = RunFolder(run)
    if not folder.exists:
        raise RunError(f"{folder.path} is not a run folder: it has no study.toml.")
    configured = parse_spec(folder.study.read_text("utf-8"), source=folder.study).search.storage
    if not configured and not folder.storage.exists():
        raise RunError(f"{folder.path} has no Optuna storage, {folder.storage.name}.")
    typer.echo(f"http://{host}:{port}/  (Ctrl-C ends it)")
    try:
        optuna_dashboard.run_server(
            open_storage(folder.storage_url(configured)), host=host, port=port
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}.") from None
