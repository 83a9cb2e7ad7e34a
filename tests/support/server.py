"""`genrec serve` as users run it: a process of its own on a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

START_S = 300.0


@dataclass(kw_only=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def said(self) -> str:
        """What it wrote to standard error so far."""
        self.log.seek(0)
        return self.log.read().decode()


@contextmanager
def running(workspace: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run `genrec serve` until the block ends; gives the server once it answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "genrec", "serve", "--workspace", str(workspace), "--port", "0", *options],
            stderr=log,
            stdout=log,
            env=os.environ | dict(env or {}),
        )
        server = Server(url="", process=process, log=log)
        try:
            deadline = time.monotonic() + START_S
            while not (found := re.search(r"^(http://\S+) answers", server.said(), re.MULTILINE)):
                assert process.poll() is None and time.monotonic() < deadline, server.said()  # noqa: PT018
                time.sleep(0.1)
            server.url = found.group(1)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
