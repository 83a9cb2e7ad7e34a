"""An adapter as a release: a folder with the weights, a card that says what they were made for, and their curve.

    <name>/adapter_model.safetensors, adapter_config.json     what PEFT wrote
    <name>/card.json                                          `Card`
    <name>/curve.csv, curve.png                               what was logged, step by step
    <name>/texts.npy                                          hashes of the items' texts that were there

A prompt is a weight: an adapter is refused over another base model, template or text rule. Knows files, and PEFT where
weights are written or merged; nothing of data.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from genrec.catalog import TEXT_RULE, Catalog
from genrec.errors import ModelError
from genrec.finetune.merging import fill, whole_folder, write_adapter
from genrec.models import fingerprint
from genrec.prompt import Template

CARD = "card.json"
TEXTS = "texts.npy"
NEVER_MERGED = ("bottleneck", "prefix")
"""Methods that give what can be no part of the weights; the engine `transformers` serves it beside them."""
FORMAT = 1
"""Number of the card's format."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What an adapter was made for, and how."""

    name: str
    """What a user types."""
    created_at: str
    """ISO 8601."""
    base: str
    """The base model, as the user named it."""
    base_fingerprint: str
    """Of its weights, configuration and tokenizer."""
    template: str
    """The prompt template's name."""
    template_fingerprint: str
    """Of what it writes."""
    text_rule: str = TEXT_RULE
    """How items' texts were made."""
    max_tokens: int
    """Longest prompt in training."""
    features: tuple[str, ...]
    """Context that was written."""
    method: str
    """How it was adapted; ``none`` for the model as it is, of which only the weights beside a prior were fitted."""
    rank: int
    """Of a LoRA's updates; what vLLM must be started for."""
    objective: str
    """What the loss was normalised over."""
    gamma: float = 1.0
    """Weight of the model beside the prior."""
    beta: float = 0.0
    """Weight of the prior."""
    prior: str = ""
    """Name of the prior that the weights were fitted with."""
    data: dict[str, Any] = field(default_factory=dict)
    """People, targets, first and last instant that were learned from."""
    options: dict[str, Any] = field(default_factory=dict)
    """How training was set."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of the untuned model, the prior, the tuned model and both together, on people held out."""
    licence: str = ""
    """Of the base model; the adapter is a derivative of it."""
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read an adapter's card.

        Raises:
            ModelError: If there is none, or it is of a later version.
        """
        try:
            values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} holds no adapter: {error}", hint="See: genrec adapters list") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ModelError(
                f"the adapter in {folder} was written by another version of genrec",
                hint="Train it again: genrec train",
            )
        names = {one.name for one in fields(cls)}
        try:
            card = cls(**{key: value for key, value in values.items() if key in names})
        except TypeError as error:
            raise ModelError(f"the card of the adapter in {folder} is incomplete: {error}") from error
        return card

    def write(self, folder: Path) -> None:
        """Write the card, whole or not at all."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, default=str)
        temporary = folder / f"{CARD}.new"
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, folder / CARD)

    def check(self, *, base: Path, template: Template) -> None:
        """Refuse to be used with what it was not made for.

        Raises:
            ModelError: If the base model, the template or the text rule is another one.
        """
        for what, theirs, ours in (
            ("base model", self.base_fingerprint, fingerprint(base)),
            ("prompt template", self.template_fingerprint, template.fingerprint),
            ("rule for items' texts", self.text_rule, TEXT_RULE),
        ):
            if theirs != ours:
                raise ModelError(
                    f"the adapter {self.name!r} was trained with another {what}",
                    hint=f"It wants the model {self.base} and the template {self.template}; or train another one.",
                )


def share_unseen(folder: Path, catalog: Catalog) -> float:
    """Share of a catalogue's items whose texts an adapter has never seen."""
    return float(1 - np.isin(_hashes(catalog), np.load(folder / TEXTS)).mean()) if len(catalog) else 0.0


def checkpoints_of(name: str) -> str:
    """The folder, beside an adapter's, that holds its checkpoints until training has ended."""
    return f".{name}.checkpoints"


def _hashes(catalog: Catalog) -> np.ndarray:
    texts = (text.encode(errors="surrogatepass") for text in catalog.texts)
    return np.array([int.from_bytes(hashlib.blake2b(t, digest_size=8).digest(), "big") for t in texts], np.uint64)


def _draw(log: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the loss by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for key, label in (("loss", "learned from"), ("eval_loss", "held out")):
        if points := [(entry["step"], entry[key]) for entry in log if key in entry]:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a target")
    if log:
        axes.legend()
    figure.savefig(path)


def save_weights(folder: Path, card: Card, catalog: Catalog) -> None:
    """Write an adapter that leaves the model as it is, whole or not at all."""
    with whole_folder(folder) as new:
        np.save(new / TEXTS, np.sort(_hashes(catalog)))
        card.write(new)


def save(model: Any, base: Path, folder: Path, card: Card, catalog: Catalog, log: Sequence[dict[str, float]]) -> None:
    """Write an adapter, whole or not at all; a folder that is there is replaced.

    Args:
        model: The trained model, PEFT's or transformers'; the latter is written whole.
        base: Folder of the base model.
        folder: Where to put it.
        card: What to say of it.
        catalog: The items that were there.
        log: What training logged, in order.
    """
    with whole_folder(folder) as new:
        if hasattr(model, "peft_config"):
            write_adapter(model, new)
        else:
            fill(model, base, new)
        (new / "README.md").unlink(missing_ok=True)  # PEFT's own, with nothing in it
        names = ["step", *sorted({name for entry in log for name in entry} - {"step"})]
        with (new / "curve.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(log)
        with suppress(ImportError):  # the picture is for those who have matplotlib
            _draw(log, new / "curve.png")
        np.save(new / TEXTS, np.sort(_hashes(catalog)))
        card.write(new)
