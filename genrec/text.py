"""Making text from data safe to stand in a prompt. Knows nothing of prompts, tokenizers or catalogues."""

from __future__ import annotations

import re
import unicodedata

_CHAT_MARKER = re.compile(r"<\s*[|｜/]|[|｜]\s*>|<(?=\w+_?\w*>)|\[\s*/?\s*(?=INST|SYS)", re.IGNORECASE)
"""What opens or closes special tokens in chat formats: ``<|…|>``, ``</s>``, ``<start_of_turn>``, ``[INST]``."""


def clean(text: str, *, max_chars: int = 80) -> str:
    """Write untrusted text so that it stays on its line, in its field and out of the chat format.

    Line breaks, control characters, format characters (zero-width, right-to-left overrides) and runs of spaces become
    one space or nothing, ``|`` becomes ``/`` and ``;`` becomes ``,`` in all their widths, chat markers lose their
    brackets. Letters of all scripts and emoji stay. Cleaning what is clean changes nothing.

    Args:
        text: Anything.
        max_chars: Longest result; a longer text is cut, at a word where there is one in the second half.

    Returns:
        One line, possibly empty.
    """
    text = unicodedata.normalize("NFC", text[: 8 * max_chars])
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c)[0] in "ZC" and c not in _JOINERS else c for c in text)
    while (without := _CHAT_MARKER.sub(" ", text)) != text:
        text = without
    text = " ".join(text.translate(_REPLACED).split())
    if len(text) > max_chars:
        cut = text[: max_chars + 1].rfind(" ")
        text = text[: cut if cut > max_chars // 2 else max_chars]
    return unicodedata.normalize("NFC", text).strip()


_REPLACED = str.maketrans("|;｜；﹔︔", "/,/，，，")
"""The two characters that close a field, and those that some tokenizers take for one of them."""
_JOINERS = "\u200d"
"""Zero-width joiner: holds emoji together and changes nothing else."""
