"""Writing a model in which an adapter is part of the weights. Knows transformers and PEFT, and nothing of cards."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genrec.engines.transformers import causal_model


def merge(base: Path, adapter: Path, out: Path) -> None:
    """Write a model folder in which an adapter is part of the weights, for engines that cannot load it beside them.

    Args:
        base: The base model's folder.
        adapter: The adapter's.
        out: Where to put the whole; nothing is there until it is whole.
    """
    import peft

    with empty_ranks():
        adapted = peft.PeftModel.from_pretrained(causal_model(base), str(adapter))
    write_whole(adapted.merge_and_unload(), base, out)


def write_adapter(model: Any, folder: Path) -> None:
    """Write what PEFT has added to a model."""
    with empty_ranks():
        model.save_pretrained(folder)


@contextmanager
def empty_ranks() -> Iterator[None]:
    """AdaLoRA may leave a layer no rank at all, which PEFT takes for a damaged file and warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*invalid shape")
        warnings.filterwarnings("ignore", message=".*rank_pattern keys")
        yield


def fill(model: Any, base: Path, folder: Path) -> None:
    """Write a whole model into a folder, beside what its base's folder holds besides weights."""
    for path in base.iterdir():
        if path.is_file() and path.suffix not in (".safetensors", ".bin") and ".index." not in path.name:
            shutil.copy2(path, folder / path.name)
    model.config._attn_implementation = None  # training's own is of no use to others
    model.save_pretrained(folder)


def write_whole(model: Any, base: Path, out: Path) -> None:
    """As `fill`, into a folder of its own."""
    with whole_folder(out) as new:
        fill(model, base, new)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a new folder that takes the place of `out` when the block ends, and is removed should it fail."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield new
        if out.exists():
            shutil.rmtree(out)
        os.replace(new, out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
