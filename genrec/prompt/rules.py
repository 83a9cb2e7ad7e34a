"""What a template may do, as a rule about each node of its syntax tree.

A template prints, tests and loops over the person's profile. All else is refused, so whatever passes ends soon, writes
little and reaches nothing, whatever profile it is given: there is nothing left that could run for long. Knows nothing
of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from jinja2 import meta, nodes

_Node = TypeVar("_Node", bound=nodes.Node)
_ALLOWED = (
    *(nodes.Template, nodes.Extends, nodes.Block, nodes.Output, nodes.TemplateData, nodes.If, nodes.For),
    *(nodes.Name, nodes.Const, nodes.Tuple, nodes.List, nodes.Getattr, nodes.Getitem, nodes.Call),
    *(nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.Not, nodes.And, nodes.Or),
    *(nodes.CondExpr, nodes.Concat),
)
FILTERS = ("capitalize", "d", "default", "first", "last", "length", "lower", "title", "trim", "upper")
"""Filters that make nothing longer."""
METHODS = ("get", "items", "keys", "values")
"""What of the profile may be called."""
MAX_SUPERS = 8
"""How often a template may call super: each call can double what the template below it writes."""


def refusal(template: nodes.Template) -> tuple[int, str] | None:
    """The first thing in a parsed template that it may not do: line and reason; None where all is well."""
    for node in template.find_all(nodes.Node):
        if why := _why_not(node):
            return node.lineno, why
    # Names come last: to look for them is to fold constants, which is safe once the rules above hold.
    unknown = meta.find_undeclared_variables(template) - {"profile"}
    for name in template.find_all(nodes.Name):
        if name.name in unknown:
            return name.lineno, f"there is no variable {name.name!r}"
    supers = [call for call in template.find_all(nodes.Call) if _is_super(call)]
    if len(supers) > MAX_SUPERS:
        return supers[-1].lineno, f"a template may call super {MAX_SUPERS} times at most"
    for node in template.body:
        for part in node.nodes if isinstance(node, nodes.Output) else ():
            text = part.data if isinstance(part, nodes.TemplateData) else "code"
            if text.strip():
                n_blank = text[: len(text) - len(text.lstrip())].count("\n")
                return part.lineno + n_blank, "words outside its blocks are never read"
    return None


def _why_not(node: nodes.Node) -> str | None:
    if not isinstance(node, _ALLOWED):
        return f"a template may not use {type(node).__name__.lower()!r}"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"a template may not reach for {node.attr!r}"
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        return f"a template may not use the filter {node.name!r}, only {', '.join(FILTERS)}"
    if isinstance(node, nodes.Call) and not (_is_of_profile(node) or _is_super(node)):
        return f"a template may call profile.{', profile.'.join(METHODS)} and super, nothing else"
    if isinstance(node, nodes.For):
        if not (_is_of_profile(node.iter) or (isinstance(node.iter, nodes.Name) and node.iter.name == "profile")):
            return "a template may loop over the profile, nothing else"
        if any(True for _ in _below(node, nodes.For)):
            return "a template may not loop within a loop"
        if any(_is_super(call) for call in _below(node, nodes.Call)):
            return "a template may not call super within a loop"
    if isinstance(node, nodes.Extends) and not (
        isinstance(node.template, nodes.Const) and isinstance(node.template.value, str)
    ):
        return "a template extends another by its name, in quotes"
    return None


def _below(loop: nodes.For, kind: type[_Node]) -> Iterator[_Node]:
    for part in (*loop.body, *loop.else_):
        if isinstance(part, kind):
            yield part
        yield from part.find_all(kind)


def _is_of_profile(node: nodes.Node) -> bool:
    """Whether it is ``profile.items()`` or the like."""
    return (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Getattr)
        and node.node.attr in METHODS
        and isinstance(node.node.node, nodes.Name)
        and node.node.node.name == "profile"
    )


def _is_super(node: nodes.Call) -> bool:
    return isinstance(node.node, nodes.Name) and node.node.name == "super"
