"""What the tests of training share."""

from __future__ import annotations

import pytest

from genrec.finetune.packing import Writing
from genrec.tokenizer import HfTokenizer
from tests.support.people import writing_with


@pytest.fixture(scope="package")
def writing(tiny_tokenizer: HfTokenizer) -> Writing:
    """How people are written for the tiny model."""
    return writing_with(tiny_tokenizer)
