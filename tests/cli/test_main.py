"""The command line as a whole: every command explains itself, errors are advice, shells complete."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from genrec import __version__, errors
from genrec.cli import COMMANDS, main
from genrec.cli._common import progress, table
from genrec.errors import GenrecError


def commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    found = []
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            found.append((*path, name))
            if isinstance(command, click.Group):
                found += commands(command, *path, name)
    return found


def test_every_command_explains_itself() -> None:
    paths = commands(main)
    assert {path[0] for path in paths} == set(COMMANDS)
    for path in paths:
        helped = CliRunner().invoke(main, [*path, "--help"])
        assert helped.exit_code == 0, (path, helped.output)
        assert helped.stdout.startswith(f"Usage: main {' '.join(path)}"), path


def test_help_lists_the_commands_in_the_order_of_the_story() -> None:
    helped = CliRunner().invoke(main, ["--help"]).stdout
    listed = re.findall(r"^  ([a-z]+)  ", helped.partition("Commands:")[2], re.M)
    assert listed == list(COMMANDS)
    assert __version__ in CliRunner().invoke(main, ["--version"]).stdout


def test_a_mistyped_command_is_answered_with_the_one_that_may_be_meant() -> None:
    run = CliRunner().invoke(main, ["recomend", "ann"])
    assert run.exit_code == 2
    assert "No such command 'recomend'. Did you mean 'recommend'?" in run.stderr
    assert CliRunner().invoke(main, ["zzz"]).stderr.endswith("Error: No such command 'zzz'.\n")


def error_classes() -> list[type[GenrecError]]:
    return [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, GenrecError)]


@pytest.mark.parametrize("cls", error_classes())
def test_an_error_is_advice_and_an_exit_code(cls: type[GenrecError], monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise cls("It is raining.", hint="Take an umbrella.")

    monkeypatch.setattr(type(main), "get_command", lambda *_: fail)
    run = CliRunner().invoke(main, ["anything"])
    assert run.stderr.splitlines() == ["error: It is raining.", "hint: Take an umbrella."]
    assert run.exit_code == cls.exit_code


def families() -> list[type[GenrecError]]:
    """Errors with an exit code of their own."""
    return [cls for cls in error_classes() if cls is GenrecError or cls.__base__ is GenrecError]


def test_exit_codes_differ_and_are_documented() -> None:
    codes = [cls.exit_code for cls in families()]
    assert len(set(codes)) == len(codes)
    assert not {0, 2} & set(codes)
    for cls in error_classes():
        code = f" +{cls.exit_code}\\b" if cls in families() else ""
        assert re.search(rf"- {cls.__name__}\b{code}", errors.__doc__ or "")


def test_help_says_what_exit_codes_mean() -> None:
    said = CliRunner().invoke(main, ["--help"]).stdout.partition("Exit codes:")[2]
    listed = dict(re.findall(r"^ +(\d+) +(.+)$", said, re.M))
    assert [int(code) for code in listed] == [0, 1, 2, *range(3, 12)]
    for cls in families():
        assert cls is GenrecError or listed[str(cls.exit_code)] == (cls.__doc__ or "").splitlines()[0]


def test_every_error_is_raised_in_a_test_of_its_own() -> None:
    here = Path(__file__)
    tests = "".join(p.read_text() for p in here.parents[1].rglob("test_*.py") if p != here)
    missing = [cls.__name__ for cls in error_classes() if cls is not GenrecError and cls.__name__ not in tests]
    assert missing == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell])
    assert script.exit_code == 0
    assert f"_GENREC_COMPLETE={shell}_complete" in script.stdout


def test_a_shell_completes_commands() -> None:
    env = {**os.environ, "_GENREC_COMPLETE": "bash_complete", "COMP_WORDS": "genrec mo", "COMP_CWORD": "1"}
    code = "from genrec.cli import main; main(prog_name='genrec')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,models\n"


def on_a_terminal(code: str, **env: str) -> bytes:
    """What a program writes to standard error when that is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env={**os.environ, **env}):
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return written


WORK = """
from genrec.cli._common import progress
with progress("counting", 4) as advance:
    advance(1)
"""


def test_progress_is_drawn_on_a_terminal_and_wiped_away() -> None:
    written = on_a_terminal(WORK)
    assert b"counting" in written
    assert written.endswith(b"\r\x1b[K")


def test_progress_is_silent_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("counting", 4) as advance:
        advance(4)
    assert capsys.readouterr() == ("", "")


FAIL = "from genrec.cli import main; main(['models', 'get', 'no such model'], prog_name='genrec')"


def test_colour_is_for_terminals_that_want_it() -> None:
    assert b"\x1b[31m" in on_a_terminal(FAIL, NO_COLOR="")
    plain = on_a_terminal(FAIL, NO_COLOR="1")
    assert b"error: 'no such model'" in plain
    assert b"\x1b" not in plain


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    rows = [{"name": "milk", "n": 1200, "share": 0.5}, {"name": "rye bread", "n": 7, "share": 0.123456}]
    assert table(rows).splitlines() == [
        "name           n   share",
        "milk       1,200     0.5",
        "rye bread      7  0.1235",
    ]
    assert table([]) == ""


def test_a_command_that_is_told_to_end_closes_what_it_opened() -> None:
    script = """
import time
import click
from genrec.cli import main

@click.command()
def wait():
    try:
        print("open", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)

main.get_command = lambda ctx, name: wait
main(["wait"])
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "open\n"
        running.terminate()
        assert running.stdout.read() == "closed\n"
    assert running.returncode == 128 + signal.SIGTERM
