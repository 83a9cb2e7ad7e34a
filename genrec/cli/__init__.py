"""The command line. One file per command, imported when the command is used, so `genrec --help` is instant.

The only place where names typed by a person become objects, and where errors become messages and exit codes.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from typing import Any

import click

from genrec import __version__
from genrec.errors import GenrecError, meant

COMMANDS = {
    "demo": "Real data, a real language model, end to end, in a folder you can go on with.",
    "init": "Make a workspace: genrec.toml and a store.",
    "doctor": "Say what is missing here and how to get it.",
    "config": "Show every setting and where it comes from.",
    "import": "Bring data in through a source.",
    "media": "Put pictures, sounds and texts of items into words.",
    "describe": "Say what the store holds, and what is odd about it.",
    "recommend": "Recommend items to people, now or at any moment.",
    "evaluate": "Say how good recommendations are, judged by what people chose last.",
    "ablate": "Say what each part of the context is worth, by doing without it.",
    "train": "Teach the language model what these people choose.",
    "fuse": "Fit how much the language model and the prior count, without training.",
    "tune": "Find training options that suit these people.",
    "adapters": "List, show and choose what training made.",
    "serve": "Answer over HTTP, with OpenAI's routes beside ours on vLLM.",
    "user": "Show what is known of somebody, and correct it.",
    "models": "List models and fetch them.",
    "prompts": "List, show, render and copy prompt templates.",
    "plugins": "List what is installed, and what is broken.",
    "bench": "Measure this machine: decoding speed and exactness.",
    "completion": "Print the script that makes a shell complete genrec commands.",
}
"""Command → its one-line help, in the order of the story; the module is ``genrec.cli.<command>`` (``import_``)."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name + "_" if cmd_name == "import" else cmd_name
        command: click.Command = importlib.import_module(f"genrec.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, or suggest the one that may be meant."""
        if self.get_command(ctx, args[0]) is None and (advice := meant(args[0], COMMANDS)):
            ctx.fail(f"No such command {args[0]!r}. {advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn an error that genrec raised on purpose into advice and an exit code."""
        try:
            return super().invoke(ctx)
        except GenrecError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
            sys.exit(error.exit_code)


def _exit_codes() -> str:
    """What the exit codes mean, as the end of the help."""
    meanings = {
        0: "Done.",
        1: "Interrupted, or an error nobody foresaw; doctor: something is broken.",
        2: "Wrong usage.",
    }
    meanings |= {
        error.exit_code: str(error.__doc__).splitlines()[0]
        for error in GenrecError.__subclasses__()
        if error.exit_code > 2
    }
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<4}{what}" for code, what in meanings.items())


@click.group(
    cls=LazyGroup,
    epilog=_exit_codes(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="genrec")
@click.pass_context
def main(ctx: click.Context) -> None:
    """A recommender that is a language model.

    Start with `genrec demo`, or `genrec init` in a folder of your own.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: object) -> None:
    """End as Ctrl-C would: whatever is open is closed, and an engine's processes do not outlive us."""
    sys.exit(128 + number)
