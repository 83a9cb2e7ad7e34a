"""`genrec serve`: recommendations over HTTP until Ctrl-C or SIGTERM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genrec.cli._common import workspace_option


@click.command("serve")
@click.option("--host", help="The address to listen on. [default: 127.0.0.1, or genrec.toml's]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; 0 takes a free one. [default: 8000]")
@click.option("--engine", metavar="NAME", help="auto, vllm, transformers, or none for the prior alone.")
@click.option("--model", metavar="NAME", help="The language model: an alias, a Hugging Face id or a folder.")
@click.option("--scoring", type=click.Choice(["auto", "joint", "masked", "fused"]), help="What a step is worth.")
@click.option("--api-key", metavar="env:NAME", help="The variable that holds the key clients must send.")
@click.option(
    "--api-key-file", type=click.Path(dir_okay=False, path_type=Path), help="A file of such keys, one a line."
)
@click.option("--max-queue", type=click.IntRange(1, 100_000), help="Most people under way at once. [default: 256]")
@click.option("--timeout", "timeout_s", type=float, help="Longest time for a request, in seconds. [default: 60]")
@workspace_option
def command(
    host: str | None,
    port: int | None,
    engine: str | None,
    model: str | None,
    scoring: str | None,
    api_key: str | None,
    api_key_file: Path | None,
    max_queue: int | None,
    timeout_s: float | None,
    workspace: Path,
) -> None:
    """Answer over HTTP: recommendations, new events, and OpenAI's routes where vLLM runs the model.

    \b
    genrec serve
    export GENREC_KEY=$(python3 -c "import secrets; print(secrets.token_urlsafe(32))")
    genrec serve --host 0.0.0.0 --api-key env:GENREC_KEY

    Without a key, only this machine is answered. Stop it with Ctrl-C or SIGTERM: requests under way are finished.
    """  # noqa: D301  (click's own mark for lines that are not to be wrapped)
    from genrec.errors import ModelError
    from genrec.workspace import open_workspace

    try:
        from genrec.serve.server import serve
    except ImportError as error:
        raise ModelError(
            f"serving needs a package that is missing: {error.name}", hint="pip install 'genrec[serve]'"
        ) from error
    table: dict[str, Any] = {
        "host": host,
        "port": port,
        "api_key": api_key,
        "api_key_file": str(api_key_file.absolute()) if api_key_file else None,
        "max_queue": max_queue,
        "timeout_s": timeout_s,
    }
    given = {name: value for name, value in table.items() if value is not None}

    def ready(url: str, status: dict[str, Any]) -> None:
        by = f"{status['model']} on {status['engine']}" if status["model"] else "the prior alone"
        click.echo(f"{url} answers with {by}; {status['catalog']['n_items']:,} items. Stop with Ctrl-C.", err=True)
        for note in status["notes"]:
            click.echo(f"note: {note}", err=True)

    with open_workspace(workspace, engine=engine, model=model, scoring=scoring, serve=given or None) as opened:
        serve(opened, ready)
