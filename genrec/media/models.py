"""Readers with models that transformers loads: a caption, tags out of a list of one's own, the kinds of a sound.

Which model is the user's choice; it has to be on this machine. Knows transformers, soundfile and nothing of items.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec.errors import ConfigError, DataError, ModelError
from genrec.media.base import MediaReader, Reading
from genrec.media.pictures import open_picture
from genrec.models import fingerprint, model_folder

SECONDS = 30
"""How much of a sound is listened to, from its beginning."""
MAX_CHANNELS, MAX_RATE = 8, 384_000
"""Most channels, and most samples a second, of what is taken for a sound."""


@dataclass(kw_only=True)
class _WithModel(MediaReader):
    """A reader that needs a model."""

    model: str
    """The model: a local folder, or a Hugging Face id that is on this machine (genrec models get ID)."""

    def identity(self) -> str:
        """The model's files and the options."""
        own = {f.name for f in fields(self)} - {f.name for f in fields(_WithModel)}
        options = {name: getattr(self, name) for name in sorted(own)}
        return f"{type(self).__name__} 1 {fingerprint(model_folder(self.model))} {options}"

    @cached_property
    def _transformers(self) -> Any:
        """The library, silent."""
        try:
            import torch  # noqa: F401  (transformers imports without it, and can do nothing then)
            import transformers
        except ModuleNotFoundError as error:
            raise ModelError(f"models need the package {error.name}", hint="pip install 'genrec[media]'") from error
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        return transformers

    @cached_property
    def _loaded(self) -> Any:
        folder, transformers = model_folder(self.model), self._transformers
        try:
            return self._load(transformers, folder)
        except Exception as error:  # whatever the library says of a folder that holds something else
            raise ModelError(
                f"transformers cannot load {folder} as the reader {type(self).__name__.lower()} needs it: {error}",
                hint="Name a model of that kind, saved whole with save_pretrained().",
            ) from error

    def _load(self, transformers: Any, folder: Path) -> Any:
        """What `read` works with."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Caption(_WithModel):
    """What a picture shows, as a model that writes says it."""

    prompt: str = "Name what the picture shows in a few words."
    """What a model that follows instructions is asked; one that only captions is asked nothing."""
    max_tokens: int = 40
    """Longest caption, in tokens."""

    def read(self, content: bytes) -> Reading:
        """Ask the model."""
        picture = open_picture(content)
        if getattr(self._loaded.processor, "chat_template", None):
            said = [{"type": "image", "image": picture}, {"type": "text", "text": self.prompt}]
            asked: dict[str, Any] = {"text": [{"role": "user", "content": said}]}
        else:
            asked = {"images": picture, "text": ""}
        [answer] = self._loaded(**asked, max_new_tokens=self.max_tokens, return_full_text=False)
        return Reading(words=answer["generated_text"])

    def _load(self, transformers: Any, folder: Path) -> Any:
        return transformers.pipeline("image-text-to-text", model=str(folder))


@dataclass(kw_only=True)
class Tags(_WithModel):
    """The tags that fit a picture best, out of a list, and the picture as a vector: CLIP, SigLIP and their like."""

    labels: Sequence[str]
    """What a picture may show."""
    n_tags: int = 3
    """How many of them a picture gets."""

    def __post_init__(self) -> None:
        self.labels = (self.labels,) if isinstance(self.labels, str) else tuple(self.labels)
        if not self.labels or self.n_tags < 1:
            raise ConfigError("the reader 'tags' needs labels and n_tags from 1")

    def read(self, content: bytes) -> Reading:
        """Compare the picture with the labels."""
        import torch

        picture = open_picture(content)
        model, processor, labels = self._loaded
        with torch.inference_mode():
            vector = _unit(model.get_image_features(**processor(images=picture, return_tensors="pt")))[0]
        best = np.argsort(-(labels @ vector), kind="stable")[: self.n_tags]
        return Reading(words=", ".join(self.labels[i] for i in best), vector=vector)

    def _load(self, transformers: Any, folder: Path) -> Any:
        """Model, processor and the labels' vectors, shape ``(n_labels, n_dims)``."""
        import torch

        model = transformers.AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
        processor = transformers.AutoProcessor.from_pretrained(folder)
        texts = [f"This is a photo of {label}." for label in self.labels]
        tokens = processor(text=texts, padding="max_length", truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return model, processor, _unit(model.get_text_features(**tokens))


@dataclass(kw_only=True)
class Sounds(_WithModel):
    """What kinds of sound a file holds, by a model that classifies: speech, music, the genre of a song."""

    attribute: str = "audio"
    """The attribute of items that names the file, by its path in that folder."""
    n_tags: int = 3
    """Most kinds that a sound gets."""
    least: float = 0.1
    """Probability below which a kind is left out."""

    def read(self, content: bytes) -> Reading:
        """Classify the first seconds."""
        heard = _sound(content, self._loaded.feature_extractor.sampling_rate)
        kinds = self._loaded(heard, top_k=self.n_tags)
        return Reading(words=", ".join(kind["label"] for kind in kinds if kind["score"] >= self.least))

    def _load(self, transformers: Any, folder: Path) -> Any:
        return transformers.pipeline("audio-classification", model=str(folder))


def _unit(found: Any) -> np.ndarray:
    """Features as vectors of length 1. Shape ``(n, n_dims)``, float32."""
    values = getattr(found, "pooler_output", found)
    vectors: np.ndarray = (values / values.norm(dim=-1, keepdim=True)).float().numpy()
    return vectors


def _sound(content: bytes, rate: int) -> np.ndarray:
    """The beginning of a sound on one channel, at so many samples a second. Shape ``(n_samples,)``, float32."""
    try:
        import soundfile
        from scipy.signal import resample_poly
    except (ModuleNotFoundError, OSError) as error:  # OSError: the package is there, its library is not
        raise ModelError(f"sounds need soundfile and scipy: {error}", hint="pip install 'genrec[media]'") from error
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as opened:
            if opened.channels > MAX_CHANNELS or not 1_000 <= opened.samplerate <= MAX_RATE:
                raise DataError(f"is a sound of {opened.channels} channels at {opened.samplerate} Hz, which is none")
            heard = opened.read(SECONDS * opened.samplerate, dtype="float32", always_2d=True).mean(axis=1)
            own = opened.samplerate
    except soundfile.SoundFileError as error:
        raise DataError(f"is no sound that can be read: {getattr(error, 'error_string', error)}") from error
    if not len(heard):
        raise DataError("is a sound without a sample")
    return np.asarray(resample_poly(heard, rate, own), np.float32)
