"""Opening pictures that strangers made."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.media.pictures import MAX_SIDE, open_picture

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow: pip install 'genrec[media]'")


def saved(picture: Any, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "WEBP"])
def test_pictures_come_in_rgb(kind: str) -> None:
    opened = open_picture(saved(Image.new("RGB", (30, 20), (200, 20, 20)), kind))
    assert (opened.mode, opened.size) == ("RGB", (30, 20))
    red, green, _ = opened.getpixel((15, 10))
    assert red > 150 > 100 > green


def test_what_is_transparent_is_white() -> None:
    drawn = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    drawn.putpixel((1, 1), (0, 0, 0, 255))
    opened = open_picture(saved(drawn))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 1)) == (0, 0, 0)


def test_a_large_picture_is_made_smaller_and_a_turned_one_upright() -> None:
    assert open_picture(saved(Image.new("L", (3 * MAX_SIDE, 30)))).size == (MAX_SIDE, 10)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held sideways
    assert open_picture(saved(Image.new("RGB", (30, 20)), "JPEG", exif=turned)).size == (20, 30)


def bomb(side: int) -> bytes:
    """A small PNG that says it has many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    with pytest.raises(DataError, match="too many pixels"):
        open_picture(bomb(side))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        saved(Image.effect_noise((64, 64), 60))[:400],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        saved(Image.new("RGB", (8, 8)), "TIFF"),
    ],
)
def test_what_is_no_picture_of_a_plain_format_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"picture that can(not)? be read"):
        open_picture(content)


WHOLE = [saved(Image.effect_noise((24, 16), 80), kind) for kind in ("BMP", "GIF", "JPEG", "PNG", "WEBP")]


@settings(max_examples=150)
@given(
    whole=st.sampled_from(WHOLE),
    end=st.integers(0, 3000),
    changes=st.lists(st.tuples(st.integers(0), st.binary(max_size=4))),
)
def test_a_damaged_file_is_a_picture_or_refused(whole: bytes, end: int, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(whole[:end])
    for at, new in changes:
        at %= len(content) + 1
        content[at : at + len(new)] = new
    with suppress(DataError):
        assert open_picture(bytes(content)).mode == "RGB"
