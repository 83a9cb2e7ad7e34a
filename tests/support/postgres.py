"""A real PostgreSQL for tests: Debian's binaries, a data folder and a loopback port of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = Path("/usr/lib/postgresql")


def find_binaries() -> Path | None:
    """The newest installed version's programs."""
    found = [path.parent for path in BINARIES.glob("*/bin/postgres")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def _as_server_user(folder: Path) -> list[str]:
    """What to put before a command so that the server does not run as root, which it refuses."""
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam("postgres")  # made by the Debian package
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def postgres_server(binaries: Path) -> Iterator[str]:
    """Run a server; gives the URL of its database `postgres`."""
    folder = Path(tempfile.mkdtemp(prefix="genrec-postgres-"))
    prefix = _as_server_user(folder)
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run([*prefix, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    try:
        run(
            binaries / "initdb",
            f"--pgdata={data}",
            "--username=genrec",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        control = (binaries / "pg_ctl", f"--pgdata={data}", "--wait")
        run(*control, f"--log={folder / 'log'}", f"--options={options}", "start")
        try:
            yield f"postgresql://genrec@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder)
