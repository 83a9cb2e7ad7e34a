"""What docs/social.md shows is so: a relation changes what is recommended."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrec.catalog import Catalog
from genrec.cli import main
from genrec.events import Context, items_of
from genrec.history import FRIENDS_DAYS, read_history
from genrec.prompt import bundled_prompts, load_template, render, template_names
from genrec.prompt.render import TRAIT_TOKENS
from genrec.store import Store
from genrec.tokenizer import ByteTokenizer
from genrec.traits import FRIENDS, LATELY

PAGE = (Path(__file__).parents[1] / "docs/social.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return str(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])


def test_the_example_leads_from_a_file_to_another_recommendation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "docs/social.md", "exec", dont_inherit=True), {})
    Path("genrec.toml").write_text(block("toml"), encoding="utf-8")
    found = []
    for line in block("console").splitlines():
        _, genrec, *arguments = shlex.split(line)
        assert genrec == "genrec"
        result = CliRunner().invoke(main, [*arguments, *(["--json"] if "recommend" in arguments else [])])
        assert result.exit_code == 0, result.output
        found += [json.loads(result.stdout)["items"][0]["title"]] if "recommend" in arguments else []
    assert f"The first answer is {found[0]}," in PAGE
    assert f"The second is {found[1]}," in PAGE
    assert found[0] != found[1]
    with Store.open("genrec.db") as store:
        known = read_history(store, "ann", datetime(2025, 7, 1, tzinfo=UTC), max_events=9)
        encoded = Catalog.of(items_of(store.items())).encode(ByteTokenizer())
    posts = load_template("posts", [bundled_prompts()])
    prompt = render(posts, known, Context(), encoded, ByteTokenizer(), max_tokens=10_000)
    assert prompt.turns[1][1].splitlines()[0] in PAGE


def test_the_figures_are_those_of_the_code() -> None:
    assert f"each {LATELY.days} days since; after {FRIENDS_DAYS} days nothing" in PAGE
    assert f"Up to {TRAIT_TOKENS} tokens" in PAGE
    templates = [load_template(name, [bundled_prompts()]) for name in template_names([bundled_prompts()])]
    assert [template.name for template in templates if FRIENDS in template.traits] == ["posts"]
