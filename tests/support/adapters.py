"""Adapters of the tiny model, made in seconds."""

from __future__ import annotations

from pathlib import Path

from genrec.catalog import Catalog
from genrec.finetune.adapter import Card, fingerprint, save
from genrec.finetune.methods import load_model
from genrec.finetune.options import Options
from genrec.finetune.packing import Writing
from genrec.finetune.train import train
from genrec.prompt import Template
from tests.support.people import person


def make_lora(model: Path, writing: Writing, folder: Path, *, step: int, catalog: Catalog, template: Template) -> None:
    """Train a LoRA on people who take every so manyth item, and release it for a catalogue and a template."""
    people = [person(f"p{i}", 8, first=i * step) for i in range(20)]
    options = Options(rank=8, epochs=4, step_tokens=600, learning_rate=1e-2, seed=step)
    checkpoints = folder.parent / f".{folder.name}"
    result = train(load_model(model, dtype="float32"), people, writing, options, checkpoints, progress=False)
    card = Card(
        name=folder.name,
        created_at="2025-06-15T09:00:00+00:00",
        base=str(model),
        base_fingerprint=fingerprint(model),
        template=template.name,
        template_fingerprint=template.fingerprint,
        max_tokens=1024,
        features=template.features,
        method="lora",
        rank=options.rank,
        objective=options.loss,
        gamma=0.8,
        beta=0.5,
        prior="popularity",
    )
    save(result.model, model, folder, card, catalog, result.log)
