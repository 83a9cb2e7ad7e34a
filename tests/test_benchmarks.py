"""The page about decoding says what its files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_page_is_what_the_files_make(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("benchmarks_decode", BENCHMARKS / "decode.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page(tmp_path) == script.INTRODUCTION  # parts that were not measured are left out
    if not script.RESULTS.is_dir():
        pytest.skip("nothing was measured yet")
    assert (BENCHMARKS / "decode.md").read_text(encoding="utf-8") == script.page(script.RESULTS)
