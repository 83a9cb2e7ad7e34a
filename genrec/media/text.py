"""Long texts as they begin: descriptions that lie in files of their own."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from genrec.errors import ConfigError, DataError
from genrec.media.base import MediaReader, Reading


@dataclass(kw_only=True)
class Text(MediaReader):
    """The beginning of a text file."""

    attribute: str = "text"
    """The attribute of items that names the file, by its path in that folder."""
    encoding: str = "utf-8"
    """How the files are encoded, e.g. cp1252."""

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ConfigError(f"no encoding {self.encoding!r}", hint="Write it like utf-8 or cp1252.") from None

    def identity(self) -> str:
        """The encoding."""
        return f"text 1 {self.encoding}"

    def read(self, content: bytes) -> Reading:
        """All of it; whoever keeps it takes the beginning."""
        try:
            return Reading(words=content.decode(self.encoding))
        except UnicodeDecodeError as error:
            raise DataError(f"is no text in {self.encoding}: {error.reason} at byte {error.start:,}") from error
