"""Templates: found, inherited, checked, and kept from doing too much."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.context import FEATURES, OPTIONAL
from genrec.errors import PromptError
from genrec.prompt import Template, bundled_prompts, load_template, template_names
from genrec.prompt.template import MAX_CHARS

NEUTRAL = load_template("next-item", [bundled_prompts()])


def template_in(folder: Path, text: str, name: str = "mine") -> Template:
    (folder / f"{name}.md.j2").write_text(text, encoding="utf-8")
    return load_template(name, [folder, bundled_prompts()])


def user_block(text: str) -> str:
    return f"{{% block user %}}{text}{{% endblock %}}"


# ---- what ships

OLDEST = tuple(f for f in FEATURES if f not in OPTIONAL)


def test_what_the_neutral_template_writes() -> None:
    assert NEUTRAL.turns({"age": "35-44", "household": "4"}) == [
        (
            "system",
            "You know one person well. You write down what they choose, one line a moment: when and where first, then "
            "the items, each closed by a semicolon.",
        ),
        ("user", "age: 35-44, household: 4.\nGo on with the list."),
    ]


def test_what_the_grocery_template_writes() -> None:
    assert load_template("grocery", [bundled_prompts()]).turns({}) == [
        (
            "system",
            "You know one household well. You write down what it buys in the grocery store, one line a moment: when "
            "and where first, then the products, each closed by a semicolon.",
        ),
        ("user", "Go on with the list."),
    ]


def test_every_template_that_ships_is_short_and_says_what_it_is_for() -> None:
    names = template_names([bundled_prompts()])
    assert {"grocery", "next-item", "places", "smart-home"} < set(names)
    for name in names:
        template = load_template(name, [bundled_prompts()])
        assert template.description
        assert template.features == OLDEST or name not in ("grocery", "next-item")
        assert sum(len(text) for _, text in template.turns({"age": "35-44"})) < 400


# ---- where templates come from


def test_what_is_told_from_all_moments_before_is_written_where_a_template_names_it(tmp_path: Path) -> None:
    unnamed = template_in(tmp_path, '---\ndescription: x\n---\n{% extends "next-item.md.j2" %}\n', "unnamed")
    assert unnamed.features == NEUTRAL.features == OLDEST, "or adapters would read other lines than they were taught"
    named = template_in(tmp_path, '---\ncontext: [usual, place]\n---\n{% extends "next-item.md.j2" %}\n', "named")
    assert named.features == ("place", "usual")


def test_traits_are_told_where_a_template_names_them(tmp_path: Path) -> None:
    base = template_in(tmp_path, '---\ntraits: [habits, interests]\n---\n{% extends "next-item.md.j2" %}\n', "base")
    assert base.traits == ("interests", "habits")
    child = template_in(tmp_path, '---\ndescription: x\n---\n{% extends "base" %}\n', "child")
    assert child.traits == base.traits
    none = template_in(tmp_path, '---\ntraits: []\n---\n{% extends "base" %}\n', "none")
    assert none.traits == ()
    with pytest.raises(PromptError, match="traits") as caught:
        template_in(tmp_path, "---\ntraits: [moods]\n---\n" + user_block("x"))
    assert "traits (a list of interests, habits, friends took)" in str(caught.value.hint)


def test_naming_traits_makes_another_template_and_not_naming_any_keeps_it(tmp_path: Path) -> None:
    text = '{% extends "next-item.md.j2" %}\n'
    prints = {
        template_in(tmp_path, f"---\ntraits: {traits}\n---\n{text}").fingerprint
        for traits in ("[]", "[habits]", "[interests]", "[interests, habits]", "[friends took]")
    }
    assert len(prints) == 5
    assert template_in(tmp_path, f"---\ntraits: []\n---\n{text}").fingerprint in prints
    shipped = {name: load_template(name, [bundled_prompts()]) for name in template_names([bundled_prompts()])}
    assert {name for name, template in shipped.items() if template.traits} == {"posts", "shop", "smart-home"}
    assert shipped["next-item"].fingerprint == "5dd3fcdc3f022592", "or adapters would have to be trained again"
    assert shipped["grocery"].fingerprint == "77e9c33748e534f4"


def test_front_matter_is_inherited_key_by_key(tmp_path: Path) -> None:
    base = template_in(tmp_path, '---\ncontext: [place, weekday]\n---\n{% extends "next-item.md.j2" %}\n', "base")
    assert base.features == ("weekday", "place"), "in the order in which they are written"
    assert base.description == NEUTRAL.description
    child = template_in(tmp_path, '---\ndescription: x\n---\n{% extends "base" %}\n', "child")
    assert (child.features, child.description) == (("weekday", "place"), "x")


def test_a_child_replaces_blocks_and_may_keep_what_they_said(tmp_path: Path) -> None:
    child = template_in(
        tmp_path,
        '{% extends "next-item.md.j2" %}{% block things %}films{% endblock %}'
        "{% block user %}{{ super() }} Now a film.{% endblock %}",
    )
    (_, system), (_, user) = child.turns({})
    assert "then the films" in system
    assert re.fullmatch(r"Go on with the list\.\s+Now a film\.", user)


def test_a_template_branches_and_loops_over_the_profile(tmp_path: Path) -> None:
    text = user_block(
        "{% if profile.age is defined and 'x' not in profile %}Aged {{ profile['age']|upper }}.{% endif %}"
        "{{ profile.get('city', 'no city')|title }}"
        "{% for name in profile %} {{ loop.index ~ name }}{% else %} nothing{% endfor %}"
    )
    template = template_in(tmp_path, text)
    assert template.turns({}) == [("user", "No City nothing")]
    assert template.turns({"age": "a", "city": "rome"}) == [("user", "Aged A.Rome 1age 2city")]


def test_the_first_folder_wins_and_a_path_comes_before_all(tmp_path: Path) -> None:
    own = template_in(tmp_path, user_block("mine"), "next-item")
    assert own.turns({}) == [("user", "mine")]
    by_path = load_template(str(tmp_path / "next-item.md.j2"), [bundled_prompts()])
    assert by_path.turns({}) == [("user", "mine")]


def test_a_template_in_a_folder_has_the_folder_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    template_in(tmp_path, user_block("film"), "films/next")
    assert template_names([tmp_path, tmp_path / "nowhere"]) == ["films/next"]
    assert load_template("films/next", [tmp_path]).turns({}) == [("user", "film")]


def test_the_fingerprint_follows_what_is_written_not_what_is_said_about_it(tmp_path: Path) -> None:
    text = '{% extends "next-item.md.j2" %}' + user_block("Go on.")
    one = template_in(tmp_path, text)
    assert template_in(tmp_path, "---\ndescription: other words\n---\n" + text).fingerprint != NEUTRAL.fingerprint
    assert template_in(tmp_path, text, "copy").fingerprint == one.fingerprint
    assert template_in(tmp_path, "---\ncontext: [place]\n---\n" + text).fingerprint != one.fingerprint


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("---\ndescription: x\n---\n{% block user %}\n{{ 1 + }}\n{% endblock %}", 5, "unexpected"),
        ("---\n---\n{% block user %}\n{{ nonsense }}\n{% endblock %}", 4, "no variable 'nonsense'"),
        (user_block("\n{% if profile %}{{ now }}{% endif %}"), 2, "no variable 'now'"),
        (user_block("{{ profile.age }}"), 1, "no attribute 'age'"),
        (user_block("\n\n{{ profile.__class__.__mro__ }}"), 3, "may not reach for '__"),
        (user_block("{{ ''.__class__ }}"), 1, "may not reach for '__class__'"),
        (user_block("{{ profile['__class__'] }}"), 1, "__class__"),
        (user_block("{{ profile|attr('__class__') }}"), 1, "may not use the filter 'attr'"),
        (user_block("{{ profile.get.__globals__ }}"), 1, "may not reach for"),
        (user_block("{% for i in range(10**9) %}x{% endfor %}"), 1, "may not use|no variable|may loop over"),
        (user_block("{% for i in range(9) %}x{% endfor %}"), 1, "no variable 'range'|may loop over the profile"),
        (user_block("{% for a in profile %}{% for b in profile %}{% endfor %}{% endfor %}"), 1, "loop within a loop"),
        (user_block("{% for a in profile recursive %}{{ loop(profile) }}{% endfor %}"), 1, "may call"),
        (user_block("{% for a in 'abc' %}{% endfor %}"), 1, "may loop over the profile"),
        (user_block("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), 1, "may not use 'macro'"),
        (user_block("{{ self.user() }}"), 1, "may call|no variable"),
        (user_block("{{ 'x' * 10**12 }}"), 1, "may not use 'mul'"),
        (user_block("{{ 10**10**10 }}"), 1, "may not use 'pow'"),
        (user_block("{{ super() }}" * 9), 1, "super 8 times at most"),
        (user_block("{% for a in profile %}{{ super() }}{% endfor %}"), 1, "super within a loop"),
        (user_block("{{ '%1000000000d' % 1 }}"), 1, "may not use 'mod'"),
        (user_block("{{ '{:1000000000}'.format(1) }}"), 1, "may call"),
        (user_block("{% set x = 'a' %}"), 1, "may not use 'assign'"),
        (user_block("{% include 'next-item.md.j2' %}"), 1, "may not use 'include'"),
        (user_block("{{ lipsum() }}"), 1, "lipsum|may call"),
        (user_block("{{ profile|tojson }}"), 1, "may not use the filter 'tojson'"),
        (user_block("{{ profile|unheard }}"), 1, "unheard"),
        ("{% extends profile.x %}", 1, "by its name, in quotes"),
        (user_block("x") + "\n\nwords", 3, "outside its blocks"),
        ("---\ndescription: x\nwords", 1, "front matter is not closed"),
        ("---\ndescription: x\n: [\n---\n" + user_block("x"), 3, "not YAML"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(PromptError, match=re.compile(rf"'mine', line {line}: .*({says})", re.DOTALL)) as caught:
        template_in(tmp_path, text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\nmodel: x\n---\n" + user_block("x"), "model: there is no such key"),
        ("---\ncontext: [moonphase]\n---\n" + user_block("x"), "context: "),
        ("---\n- a\n- b\n---\n" + user_block("x"), "front matter: "),
        ("{% extends 'nowhere.md.j2' %}", "no prompt template 'nowhere', which 'mine' extends"),
        ("{% extends '../secret' %}", "no prompt template '../secret'"),
        ("{% extends 'mine' %}", "extends itself"),
        (user_block("x" * MAX_CHARS), "20,0.. characters, 20,000 is most"),
        ("{% block other %}x{% endblock %}", "neither a block `system` nor a block `user`"),
        (user_block("{# nothing #}"), "with words in it"),
        ("", "neither"),
        (user_block("{{ " + "(" * 5_000), "nested too deeply|unexpected"),
    ],
)
def test_a_wrong_template_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PromptError, match=says) as caught:
        template_in(tmp_path, text)
    assert caught.value.hint


def test_two_templates_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md.j2").write_text("{% extends 'b' %}")
    with pytest.raises(PromptError, match="extends itself"):
        template_in(tmp_path, "{% extends 'a' %}", "b")


def test_a_line_of_the_parent_is_named_as_the_parents(tmp_path: Path) -> None:
    (tmp_path / "parent.md.j2").write_text(user_block("\n{{ nothing }}"))
    with pytest.raises(PromptError, match="'parent', line 2"):
        template_in(tmp_path, "{% extends 'parent' %}")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.md.j2").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="cannot be read"):
        load_template("mine", [tmp_path])


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.md.j2").write_bytes(b"\xef\xbb\xbf---\r\ndescription: x\r\n---\r\n" + user_block("a").encode())
    template = load_template("mine", [tmp_path])
    assert (template.description, template.turns({})) == ("x", [("user", "a")])


def test_an_unknown_template_names_those_there_are() -> None:
    with pytest.raises(PromptError, match=r"no prompt template 'grocer'\. There are: advertising, city"):
        load_template("grocer", [bundled_prompts()])


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=8))
def test_a_profile_is_words_never_code(profile: dict[str, str]) -> None:
    (_, system), (_, user) = NEUTRAL.turns(profile)
    assert system == NEUTRAL.turns({})[0][1]
    for name, value in profile.items():
        assert f"{name}: {value}".strip() in user
