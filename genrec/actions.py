"""What an action says of its item: how much it counts as a choice, or that the item was refused.

Knows names and values of actions; nothing of events, people or items.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STRONG = 0.5
"""Least weight of a choice that is learned to foretell and judged by, and that takes a refusal back. Weaker ones are
history."""
SEPARATORS = " -_."
"""Signs that do not count in an action's name; neither does the case of the letters A to Z."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one kind of action counts."""

    weight: float = 1.0
    """Above 0 a choice, 1 at most; 0 nothing that was done; -1 a refusal."""
    positive: float | None = None
    """The least value that is a choice; a lower one refuses, and an event without a value is a choice."""

    @property
    def may_refuse(self) -> bool:
        """Whether an event can be a refusal by it."""
        return self.weight < 0 or self.positive is not None

    def __str__(self) -> str:
        return f"{self.weight:g}" if self.positive is None else f"1 from {self.positive:g} on, below -1"


_CHOICES = """interact buy purchase order checkout add_to_cart add_to_basket book reserve rent subscribe download
    install play complete finish listen watch stream read like love favorite favourite upvote thumbs_up share repost
    comment reply rate review save bookmark follow visit check_in switch_on turn_on open start use"""
_REFUSALS = "dislike hide block return refund reject downvote thumbs_down not_interested"
_WEIGHTS = {
    **dict.fromkeys(_CHOICES.split(), 1.0),
    "click": 0.5,
    "view": 0.3,
    "impression": 0.0,
    "skip": 0.0,
    **dict.fromkeys(_REFUSALS.split(), -1.0),
}
_SUSPECT = tuple(  # beginnings of words
    "dislik unlik hate hide block skip return refund reject remov delet cancel report downvote thumbsdown mute "
    "unfollow unsubscri uninstall negativ notinterested spam abandon".split()
)


@dataclass(frozen=True, kw_only=True)
class Actions:
    """What each kind of action counts, by its plain name; any other counts 1. Made by `Actions.of`."""

    rules: Mapping[str, Rule] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any] | None = None) -> Actions:
        """The usual actions, and what somebody says of these or others.

        Args:
            told: By name a weight, or ``{"positive": 4}``: see `Rule`.

        Raises:
            ValueError: If it is neither, or a name says nothing or the same as another one.
        """
        own: dict[str, Rule] = {}
        for name, what in (told or {}).items():
            if not (plain := plain_name(name)) or plain in own:
                why = "is told twice, spelt otherwise" if plain else "has no sign that counts"
                raise ValueError(f"the action {name!r} {why}: capitals and the signs {SEPARATORS!r} make no difference")
            own[plain] = _rule(name, what)
        return cls(rules={plain_name(name): Rule(weight=weight) for name, weight in _WEIGHTS.items()} | own)

    def of_action(self, action: str) -> Rule:
        """What an action counts, however it is spelt."""
        return self.rules.get(plain_name(action), Rule())

    def names(self, action: str) -> bool:
        """Whether something is said of an action."""
        return plain_name(action) in self.rules

    def suspects(self, action: str) -> bool:
        """Whether an action counts as a choice for want of an entry, and is called like a refusal."""
        words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", action)
        begun = ("".join(words[i:]).lower() for i in range(len(words)) if i == 0 or words[i - 1].lower() != "un")
        return not self.names(action) and any(rest.startswith(_SUSPECT) for rest in begun)


def plain_name(action: str) -> str:
    """The name without case and separators: ``Add-to-cart`` is ``add_to_cart``."""
    return "".join(sign.lower() if sign.isascii() else sign for sign in action if sign not in SEPARATORS)


def _rule(name: str, what: Any) -> Rule:
    is_number = isinstance(what, (int, float)) and not isinstance(what, bool)
    if is_number and (what == -1 or 0 <= what <= 1):
        return Rule(weight=float(what))
    if isinstance(what, Mapping) and what.keys() == {"positive"}:
        least = what["positive"]
        if isinstance(least, (int, float)) and not isinstance(least, bool) and math.isfinite(least):
            return Rule(positive=float(least))
    raise ValueError(
        f"{name} takes a weight from 0 to 1 (chosen) or -1 (refused), or {{ positive = 4 }} where the event's value "
        "says it"
    )
