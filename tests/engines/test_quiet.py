"""What is written to standard error while an engine starts, by whomever, shows only when the start fails."""

import os
import subprocess
import sys

import pytest

from genrec.engines.quiet import N_SHOWN, quiet_start

SPEAK_UP = """
import os, subprocess, sys
from genrec.engines.quiet import quiet_start
child = [sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"]
with quiet_start():
    os.write(2, b"from C")
    print("from Python", file=sys.stderr)
    started = subprocess.Popen(child)
started.wait()
print("afterwards", file=sys.stderr)
"""


def test_a_good_start_is_silent_and_so_is_what_it_started() -> None:
    env = {name: value for name, value in os.environ.items() if name != "VLLM_LOGGING_LEVEL"}
    done = subprocess.run([sys.executable, "-c", SPEAK_UP], capture_output=True, text=True, check=True, env=env)
    assert done.stderr == "afterwards\n"


def test_a_failed_start_tells_what_was_last_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)

    def start() -> None:
        with quiet_start():
            for n in range(2 * N_SHOWN):
                os.write(2, b"line %d\n" % n)
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        start()
    assert capfd.readouterr().err.splitlines() == [f"line {n}" for n in range(N_SHOWN, 2 * N_SHOWN)]


def test_an_interrupted_start_is_silent(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)

    def start() -> None:
        with quiet_start():
            os.write(2, b"a page of traces from another process")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


def test_someone_who_sets_a_level_sees_everything(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    with quiet_start():
        os.write(2, b"loading\n")
    assert capfd.readouterr().err == "loading\n"
