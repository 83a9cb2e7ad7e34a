"""`genrec prompts`: the templates, what they write, and how to own one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrec.cli._common import json_option, print_json, table, workspace_option
from genrec.errors import PromptError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from genrec.catalog import EncodedCatalog
    from genrec.history import History
    from genrec.tokenizer import Tokenizer

SAMPLE = (
    (0, "store 3", ("milk", "bread", "coffee")),
    (2, "store 3", ("eggs", "bread")),
    (9, "store 8", ("milk", "bananas", "butter")),
    (10, "store 8", ("milk",)),
)
"""Days after the first visit, place and items of the person that `render` shows when none is named."""


@click.group("prompts")
def command() -> None:
    """List, show, render and copy prompt templates."""


@command.command("list")
@workspace_option
@json_option
def list_(workspace: Path, as_json: bool) -> None:
    """List the templates of the workspace, of plugins and of genrec."""
    from genrec.prompt import template_names

    folders = _folders(workspace)
    rows = [{"name": name, "description": _description(name, folders)} for name in template_names(folders)]
    if as_json:
        print_json(rows)
    else:
        click.echo(table(rows))


def _description(name: str, folders: list[Traversable]) -> str:
    """What a template says of itself; one that is wrong does not keep the others from being listed."""
    from genrec.prompt import load_template

    try:
        return load_template(name, folders).description
    except PromptError as error:
        return f"broken: {error}"


@command.command("show")
@click.argument("name")
@workspace_option
def show(name: str, workspace: Path) -> None:
    """Print a template as it stands in its file."""
    from genrec.prompt import load_template

    click.echo(load_template(name, _folders(workspace)).source, nl=False)


@command.command("render")
@click.argument("name")
@click.option("--user", help="Someone in the workspace. [default: a made-up person]")
@click.option("--at", metavar="TIME", help="The moment to recommend for, e.g. 2017-11-22T18:00. [default: now]")
@workspace_option
def render_(name: str, user: str | None, at: str | None, workspace: Path) -> None:
    """Print what a model would read."""
    from genrec.prompt import load_template, render

    template = load_template(name, _folders(workspace))
    if user is None:
        from genrec.events import Context

        history, encoded, tokenizer = _sample()
        prompt = render(template, history, Context(place="store 3"), encoded, tokenizer, max_tokens=100_000)
        click.echo(prompt.text)
        return
    from genrec.recommendation import Query
    from genrec.workspace import open_workspace

    with open_workspace(workspace, prompt=name) as opened:
        [prompt] = opened.recommender(engine="transformers").prompts([Query(user_id=user, at=at)])
    click.echo(prompt.text)
    click.echo(f"\n{len(prompt.token_ids)} tokens; {prompt.n_dropped} older moments left out", err=True)


@command.command("copy")
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@workspace_option
def copy(name: str, folder: Path, workspace: Path) -> None:
    """Copy a template into a folder of yours, such as a workspace's `prompts`, to change it there."""
    from genrec.prompt import SUFFIX, load_template

    template = load_template(name, _folders(workspace))
    target = folder / (Path(template.name).name + SUFFIX)
    if target.exists():
        raise PromptError(f"{target} is there already", hint="Choose another folder, or remove that file first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(template.source, encoding="utf-8")
    except OSError as error:
        raise PromptError(f"cannot write {target}: {error.strerror or error}") from error
    is_own = folder.resolve() == (workspace / "prompts").resolve()
    used_as = template.name if is_own else target.resolve()
    click.echo(f'Wrote {target}. Use it with this line in genrec.toml: prompt = "{used_as}"')


def _folders(workspace: Path) -> list[Traversable]:
    """Where templates are looked for; a folder that is no workspace has none of its own."""
    from genrec.plugins import installed

    registry = installed()
    return [workspace / "prompts", *(registry.get("prompts", owner) for owner in registry.names("prompts"))]


def _sample() -> tuple[History, EncodedCatalog, Tokenizer]:
    from genrec.catalog import Catalog
    from genrec.events import Context, Item, User
    from genrec.history import History, Moment
    from genrec.tokenizer import ByteTokenizer

    first = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)
    names = sorted({item for _, _, items in SAMPLE for item in items})
    tokenizer = ByteTokenizer()
    history = History(
        user_id="ann",
        user=User(user_id="ann", attributes={"age": "35-44", "household": "4"}),
        at=first + timedelta(days=13, hours=9),
        moments=tuple(
            Moment(at=first + timedelta(days=days), context=Context(place=place), item_ids=items)
            for days, place, items in SAMPLE
        ),
    )
    return history, Catalog.of([Item(item_id=name, title=name) for name in names]).encode(tokenizer), tokenizer
