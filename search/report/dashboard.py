"""optuna-dashboard on the storage of a run."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from paretoformer.search.records.errors import RunError, UserError
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import open_storage
from paretoformer.search.study.spec import read_spec

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
ANYWHERE = {"0.0.0.0", "::", ""}
"""Wildcard addresses: listen on all interfaces."""

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""


def serve(run: str | Path, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        RunError: no run there. UserError: the address cannot be listened on, or the storage does
            not answer.
    """
    import optuna_dashboard

    folder = RunFolder(run)
    if not folder.exists:
        raise RunError(f"{folder.path} is not a run folder: it has no study.toml.")
    configured = read_spec(folder.study).search.storage
    if not configured and not folder.storage.exists():
        raise RunError(f"{folder.path} has no Optuna storage, {folder.storage.name}.")
    storage = open_storage(folder.storage_url(configured))
    app = only_for(host, optuna_dashboard.wsgi(storage))
    try:
        server = make_server(host, port, app, _server(host), WSGIRequestHandler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}.") from None
    with server, suppress(KeyboardInterrupt):
        typer.echo(f"http://{_written(host)}:{server.server_port}/  (Ctrl-C ends it)")
        server.serve_forever()


def only_for(host: str, app: App) -> App:
    """Accept only requests whose `Host` header names this server.

    Otherwise a page of another site could point its own host name at this machine, and read the
    study through a local user's browser (DNS rebinding). The port is not checked, since the attack
    depends on the name only: so a forwarded port works.
    """

    def checked(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if is_asked_for(str(environ.get("HTTP_HOST", "")), host):
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"This dashboard answers to {host} alone; see --host.\n".encode()]

    return checked


def is_asked_for(header: str, host: str) -> bool:
    """Whether the `Host` header names the server that listens on `host`."""
    name = _name(header)
    if name == host.lower() or (host in LOOPBACK | ANYWHERE and name in LOOPBACK):
        return bool(name)
    if host not in ANYWHERE:
        return False
    return _is_address(name) or name in {socket.gethostname().lower(), socket.getfqdn().lower()}


def _name(header: str) -> str:
    """`Example.org:8080` -> `example.org`; `[::1]:8080` -> `::1`."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    """Whether it is an IP address, which cannot be made to point elsewhere."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _server(host: str) -> type[WSGIServer]:
    """A threaded server for IPv4 or IPv6, depending on the address."""

    class Server(ThreadingMixIn, WSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    return Server


def _written(host: str) -> str:
    """For a URL."""
    return f"[{host}]" if ":" in host else host
