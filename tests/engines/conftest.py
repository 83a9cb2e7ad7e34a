"""What the tests of several engines need: one model, and one server of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stock_server import StockServer


@pytest.fixture(scope="package")
def opinionated_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with sampling defaults that would change every answer if they leaked in."""
    folder = tmp_path_factory.mktemp("opinionated") / "tiny"
    shutil.copytree(tiny_model, folder)
    defaults = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "repetition_penalty": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    return folder


@pytest.fixture(scope="package")
def stock_server(opinionated_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockServer]:
    """vLLM's own server of that model."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    server = StockServer(opinionated_model, tmp_path_factory.mktemp("server") / "log")
    try:
        server.start()
        yield server
    finally:
        server.kill()
