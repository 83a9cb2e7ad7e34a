"""Opening a picture that a stranger made: few formats, Pillow's limit on pixels, one frame, upright, on white."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from genrec.errors import DataError, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What Pillow reads by itself; others may start foreign programs."""
MAX_SIDE = 2048
"""Longest side of what is looked at, in pixels; a larger picture is made smaller."""


def open_picture(content: bytes) -> Image:
    """Read a picture.

    Raises:
        DataError: If it is none, is damaged, or would take more memory than Pillow lets a stranger's picture take.
        ModelError: If Pillow is missing.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise ModelError("pictures need the package Pillow", hint="pip install Pillow") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd in its metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            picture.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is read smaller at once
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise DataError(f"has too many pixels: {error}") from error
        except UnidentifiedImageError as error:
            raise DataError(f"is no picture that can be read ({', '.join(FORMATS)})") from error
        except Exception as error:  # a damaged file raises errors of all kinds
            raise DataError(f"is a picture that cannot be read: {error}") from error
    upright.thumbnail((MAX_SIDE, MAX_SIDE))
    page = Image.new("RGB", upright.size, "white")
    page.paste(upright, mask=upright)
    return page
