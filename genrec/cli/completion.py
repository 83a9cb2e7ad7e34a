"""`genrec completion`: the script that makes a shell complete genrec commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HOW_TO = {
    "bash": 'eval "$(genrec completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(genrec completion zsh)"  in ~/.zshrc',
    "fish": "genrec completion fish > ~/.config/fish/completions/genrec.fish",
}


@click.command("completion", epilog="\b\nTo install:\n" + "\n".join(f"  {line}" for line in HOW_TO.values()))
@click.argument("shell", type=click.Choice(list(HOW_TO)))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete genrec commands."""
    completion = get_completion_class(shell)
    assert completion is not None, f"click knows {shell}"
    root = click.get_current_context().find_root()
    click.echo(completion(root.command, {}, "genrec", "_GENREC_COMPLETE").source())
