"""From a history to a prompt: the history line is the prompt.

`template` holds the words around the lines and what a template may do, `render` the lines themselves.
"""

from __future__ import annotations

from genrec.prompt.render import ALIGN, NOW_TOKENS, Prompt, Row, render, render_rows, words_for
from genrec.prompt.template import SUFFIX, Template, bundled_prompts, load_template, template_names

__all__ = [
    "ALIGN",
    "NOW_TOKENS",
    "SUFFIX",
    "Prompt",
    "Row",
    "Template",
    "bundled_prompts",
    "load_template",
    "render",
    "render_rows",
    "template_names",
    "words_for",
]
