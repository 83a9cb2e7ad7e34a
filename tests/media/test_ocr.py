"""Words on pictures that are drawn here are read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from genrec.errors import ConfigError, DataError, ModelError
from genrec.media.ocr import Ocr
from tests.support.ocr import needs_ocr

pytestmark = needs_ocr


def label(text: str, size: int = 44, ink: str = "black", paper: str = "white") -> bytes:
    """A picture that says something."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    picture = Image.new("RGB", (900, 60 + 2 * size), paper)
    ImageDraw.Draw(picture).text((30, 30), text, fill=ink, font=font)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def reader() -> Ocr:
    return Ocr(folder=Path())


@pytest.mark.parametrize(("ink", "paper"), [("black", "white"), ("white", "#204020")])
def test_a_title_on_a_picture_is_read(reader: Ocr, ink: str, paper: str) -> None:
    words = reader.read(label("ORGANIC OAT MILK 1L", ink=ink, paper=paper)).words.split()
    assert {"ORGANIC", "OAT", "MILK"} <= set(words)
    assert len(words) <= 5


def test_lines_are_read_in_their_order(reader: Ocr) -> None:
    assert reader.read(label("RYE BREAD\nSLICED")).words.split()[:3] == ["RYE", "BREAD", "SLICED"]


def test_a_picture_without_words_says_nothing(reader: Ocr) -> None:
    assert reader.read(label("")).words == ""


def test_what_is_no_picture_is_refused(reader: Ocr) -> None:
    with pytest.raises(DataError, match="no picture"):
        reader.read(b"ORGANIC OAT MILK 1L")
    assert "MILK" in reader.read(label("MILK")).words, "and the reader goes on"


def test_options_and_data_decide_the_identity(reader: Ocr, tmp_path: Path) -> None:
    assert Ocr(folder=Path("other"), attribute="front").identity() == reader.identity()
    assert Ocr(folder=Path(), least=90).identity() != reader.identity()
    with pytest.raises(ModelError, match=r"no .*xyz\.traineddata") as caught:
        Ocr(folder=Path(), languages="eng+xyz").identity()
    assert "tessdata-fast-xyz" in (caught.value.hint or "")
    (tmp_path / "eng.traineddata").write_bytes(b"other data")
    assert Ocr(folder=Path(), data=tmp_path).identity() != reader.identity()


@pytest.mark.parametrize("options", [{"languages": ""}, {"languages": "eng+"}, {"least": 101}])
def test_options_without_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="the reader 'ocr' needs"):
        Ocr(folder=Path(), **options)  # type: ignore[arg-type]
