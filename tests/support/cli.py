"""The command line, in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from genrec.cli import main


def genrec(*arguments: str, workspace: Path) -> str:
    """Run a command in a workspace; what it wrote to standard output."""
    result = CliRunner().invoke(main, [*arguments, "-w", str(workspace)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
