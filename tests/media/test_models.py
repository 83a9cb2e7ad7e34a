"""Readers with models: what they say is what transformers says, by models with random weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from genrec.errors import ConfigError, DataError, ModelError
from genrec.media.models import SECONDS, Caption, Sounds, Tags
from tests.support import media_models
from tests.support.media_models import WORDS

pytest.importorskip("torch", reason="models need torch: pip install 'genrec[media]'")
Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow: pip install 'genrec[media]'")
LABELS = ("oat milk", "bread", "tea", "dark chocolate")
RATE = 4000


def picture(seed: int) -> bytes:
    """Coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_models.make_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_models.make_listener(tmp_path_factory.mktemp("models") / "listener", RATE)


def test_tags_are_those_that_transformers_finds(clip: Path) -> None:
    from transformers import pipeline

    theirs = pipeline("zero-shot-image-classification", model=str(clip))
    reader = Tags(folder=Path(), model=str(clip), labels=LABELS, n_tags=2)
    for seed in range(5):
        found = reader.read(picture(seed))
        expected = theirs(Image.open(io.BytesIO(picture(seed))), candidate_labels=list(LABELS))
        assert found.words.split(", ") == [one["label"] for one in expected[:2]]
        assert found.vector is not None
        assert found.vector.shape == (24,)
        assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
    assert reader.read(picture(0)).words == reader.read(picture(0)).words
    assert len({reader.read(picture(seed)).vector.tobytes() for seed in range(5)}) == 5  # type: ignore[union-attr]


def test_another_model_or_another_option_is_another_identity(clip: Path, tmp_path: Path) -> None:
    first = Tags(folder=Path("x"), model=str(clip), labels=LABELS)
    assert (
        Tags(folder=Path("y"), attribute="front", model=str(clip), labels=list(LABELS)).identity() == first.identity()
    )
    assert Tags(folder=Path("x"), model=str(clip), labels=LABELS[1:]).identity() != first.identity()
    other = media_models.make_captioner(tmp_path / "other")
    assert Tags(folder=Path("x"), model=str(other), labels=LABELS).identity() != first.identity()
    with pytest.raises(ConfigError, match="needs labels"):
        Tags(folder=Path(), model=str(clip), labels=())


def test_a_model_of_another_kind_or_none_is_advice(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load .* as the reader sounds needs it"):
        Sounds(folder=Path(), model=str(clip)).read(b"")
    with pytest.raises(ModelError, match="not a whole model folder"):
        Tags(folder=Path(), model=str(tmp_path), labels=LABELS).identity()


def test_a_captioner_says_what_it_sees(tmp_path: Path) -> None:
    reader = Caption(folder=Path(), model=str(media_models.make_captioner(tmp_path / "captioner")), max_tokens=6)
    said = [reader.read(picture(seed)).words for seed in range(4)]
    assert said == [reader.read(picture(seed)).words for seed in range(4)]
    assert all(0 < len(words.split()) <= 6 for words in said)
    assert {word for words in said for word in words.split()} <= {*WORDS, "[UNK]"}


def test_a_model_that_chats_is_asked(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    folder = media_models.make_chatting_captioner(tmp_path / "chatting", AutoTokenizer.from_pretrained(tiny_model))
    reader = Caption(folder=Path(), model=str(folder), max_tokens=8)
    said = reader.read(picture(1)).words
    assert said
    assert "Name what" not in said, "the question is not part of the answer"
    other = Caption(folder=Path(), model=str(folder), max_tokens=8, prompt="Which colours?")
    assert other.read(picture(1)).words != said, "the question counts"
    assert other.identity() != reader.identity()


def sound(rate: int, seconds: float = 1.0, channels: int = 1, kind: str = "WAV") -> bytes:
    """A tone of 220 Hz that gets louder."""
    soundfile = pytest.importorskip("soundfile", reason="sounds need soundfile: pip install 'genrec[media]'")
    t = np.arange(int(rate * seconds)) / rate
    out = io.BytesIO()
    tone = np.sin(2 * np.pi * 220 * t) * t / seconds * 0.5
    soundfile.write(out, np.repeat(tone[:, None], channels, axis=1), rate, format=kind)
    return out.getvalue()


def test_sounds_are_classified_as_transformers_does(listener: Path) -> None:
    from transformers import pipeline

    theirs = pipeline("audio-classification", model=str(listener))
    t = np.arange(RATE) / RATE
    tone = (np.sin(2 * np.pi * 220 * t) * t * 0.5).astype(np.float32)
    expected = [one["label"] for one in theirs(tone, top_k=3)]
    reader = Sounds(folder=Path(), model=str(listener), least=0.0)
    for content in (sound(RATE), sound(RATE, channels=2), sound(RATE, kind="FLAC"), sound(4 * RATE)):
        assert reader.read(content).words.split(", ") == expected
    assert Sounds(folder=Path(), model=str(listener), n_tags=1, least=0.0).read(sound(RATE)).words == expected[0]
    assert Sounds(folder=Path(), model=str(listener), least=1.0).read(sound(RATE)).words == ""


def test_only_the_beginning_of_a_long_sound_is_listened_to(listener: Path) -> None:
    reader = Sounds(folder=Path(), model=str(listener), least=0.0)
    long = sound(1000, SECONDS + 20)
    assert reader.read(long).words


@pytest.mark.parametrize("content", [b"", b"RIFF nonsense", picture(0)])
def test_what_is_no_sound_is_refused(listener: Path, content: bytes) -> None:
    pytest.importorskip("soundfile", reason="sounds need soundfile: pip install 'genrec[media]'")
    with pytest.raises(DataError, match="no sound that can be read"):
        Sounds(folder=Path(), model=str(listener)).read(content)


def test_a_sound_without_samples_or_with_many_channels_is_refused(listener: Path) -> None:
    reader = Sounds(folder=Path(), model=str(listener))
    with pytest.raises(DataError, match="without a sample"):
        reader.read(sound(RATE, 0))
    with pytest.raises(DataError, match="9 channels"):
        reader.read(sound(RATE, channels=9))
