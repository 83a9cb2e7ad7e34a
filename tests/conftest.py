"""Fixtures that more than one part of the project needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from genrec.testing.tiny import make_tiny_model
from genrec.tokenizer import HfTokenizer
from tests.support.postgres import BINARIES, find_binaries, postgres_server

settings.register_profile("genrec", deadline=None)  # how long an example takes says more about the machine
settings.load_profile("genrec")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a change of the templates be looked at as a change of their snapshots."""
    parser.addoption("--write-snapshots", action="store_true", help="Write what templates say now as what they should.")


@pytest.fixture(autouse=True, scope="session")
def small_batches() -> Iterator[None]:
    """Read stores back in many record batches, as big ones are; in one alone, half of what can go wrong does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genrec.store.log._BATCH", 50)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a running PostgreSQL server's database `postgres`."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(f"no PostgreSQL under {BINARIES}: apt-get install postgresql")
    with postgres_server(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_model: Path) -> HfTokenizer:
    """The tiny model's byte-level tokenizer."""
    return HfTokenizer(tiny_model)
