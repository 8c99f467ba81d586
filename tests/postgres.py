"""A PostgreSQL server of our own, in a temporary folder, for the length of a test or benchmark."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
USER = "postgres"
"""Whom the server runs as where we are root, which it refuses to run as."""


def unavailable_reason() -> str:
    """Why there can be no server here; empty where there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'paretoformer[postgres]'"
    if not _programs():
        return "PostgreSQL's server is not installed: apt install postgresql"
    if os.geteuid() == 0 and not _account():
        return f"PostgreSQL does not run as root, and there is no user {USER!r}"
    return ""


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database on 127.0.0.1."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="paretoformer-postgres-"))
    account = _account() if os.geteuid() == 0 else None
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, log, port = folder / "data", folder / "log", _free_port()
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(data), *arguments]
        subprocess.run(
            command,
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,  # a pipe would stay open as long as the server lives
            timeout=120,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
        )

    try:
        run("initdb", "--username=owner", "--auth=trust", "--encoding=UTF8", "--locale=C")
        run("pg_ctl", "--wait", f"--log={log}", "--options", settings, "start")
        try:
            yield f"postgresql://owner@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--wait", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Where the newest server's programs are."""
    if (found := shutil.which("pg_ctl")) and shutil.which("initdb"):
        return Path(found).parent
    there = sorted(DEBIAN.glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return there[-1].parent if there else None


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
