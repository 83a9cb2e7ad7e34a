"""Fixtures that more than one part of the project needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
