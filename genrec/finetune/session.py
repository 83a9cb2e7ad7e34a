"""From a store to an adapter: split by time, look before, train, fit the prior's weight, look after, write the folder.

What is held out is what happened last: nobody's future is learned from. Of the people with something held out, one half
judges, the other stops training and fits how much model and prior count, which can also be done without training.
Knows the order of these steps; each is another module's business.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from genrec.decoding.scoring import Scoring
from genrec.decoding.search import place, place_by_weight
from genrec.engines.base import Engine, Search
from genrec.errors import ModelError, TrainingError
from genrec.evaluation.metrics import difference, summary
from genrec.evaluation.split import Split
from genrec.finetune.adapter import Card, checkpoints_of, save, save_weights
from genrec.finetune.methods import load_adapted, load_model
from genrec.finetune.options import Options
from genrec.finetune.packing import Chooser, Writing
from genrec.finetune.steps import Batch, batch
from genrec.finetune.train import OnLook, Result, train
from genrec.finetune.weighing import choice_logits, fit_weights, mean_loss
from genrec.history import History
from genrec.models import fingerprint
from genrec.priors.base import Prior
from genrec.prompt import Row, render

REPLAY = 0.5
"""People without news whom an adapter that learns on sees again, for each of those with news."""
N_LIST = 20
"""How far down a list is looked when it is judged."""
_AT_ONCE = 40  # cases of one step when they are judged
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a training run works with."""

    base: Path
    """Folder of the base model."""
    model: str
    """Its name."""
    writing: Writing
    split: Split
    prior: Prior
    """Fitted to what happened before the cut."""
    prior_name: str
    """What it is called."""
    engine: Callable[[Path | None], Engine]
    """Starts an engine with an adapter or without, to judge with."""
    say: Callable[[str], None]
    """Is told how it goes."""
    instead: Callable[[History], Mapping[str, str] | None] = lambda case: None
    """Given a case, what its last line says by feature instead of words of its own."""

    def cases(self, people: Sequence[History]) -> list[tuple[History, Row]]:
        """Cases as rows with their last moment as the only target."""
        found = []
        for person in people:
            rows = list(self.writing.rows(person, instead=self.instead(person)))
            if rows and rows[-1].moment[-1] == len(person.moments) - 1:
                found.append((person, rows[-1].last()))
        return found

    @cached_property
    def judged(self) -> list[tuple[History, Row]]:
        """The cases that judge."""
        return self.cases(self.split.judge)

    @cached_property
    def _judged_log_masses(self) -> list[np.ndarray]:
        return [self._log_mass(person, int(row.moment[0])) for person, row in self.judged]

    def steps(self, cases: Sequence[tuple[History, Row]], options: Options) -> list[Batch]:
        """Cases in steps, with the prior's masses."""
        chooser, options = Chooser(self.writing.encoded.trie), replace(options, loss="trie")
        parts = [cases[i : i + _AT_ONCE] for i in range(0, len(cases), _AT_ONCE)]
        return [batch(part, chooser, options, mass_of=self.mass) for part in parts]

    @cached_property
    def judge_steps(self) -> list[Batch]:
        """Those that judge, in steps."""
        return self.steps(self.judged, Options())

    @cached_property
    def fit_steps(self) -> list[Batch]:
        """Those that weights are fitted to, in steps."""
        return self.steps(self.cases(self.split.fit), Options())

    def mass(self, person: History, index: int) -> np.ndarray:
        """Prior probability of each item before one of a person's moments. Shape ``(n_items,)``."""
        mass: np.ndarray = np.exp(self._log_mass(person, index))
        return mass

    def held_out_mass(self, person: History, index: int) -> np.ndarray:
        """The same, by a prior that has seen nothing of the person: what is learned from must not be known already."""
        log_mass = self.prior.log_mass_held_out(person.before(index), person.moments[index].context)
        mass: np.ndarray = np.exp(log_mass)
        return mass

    def _log_mass(self, person: History, index: int) -> np.ndarray:
        return self.prior.log_mass(person.before(index), person.moments[index].context)

    def ranks(self, engine: Engine | None, scoring: Scoring) -> list[int]:
        """Places of the judging cases' targets on exact lists; without an engine, on the prior's."""
        targets = [int(row.target[0]) for _, row in self.judged]
        if engine is None:
            return [place_by_weight(m, row) for m, row in zip(self._judged_log_masses, targets, strict=True)]
        trie = self.writing.encoded.trie
        return self.ask(engine, lambda i, m: place(trie, targets[i], within=N_LIST, scoring=scoring, log_mass=m))

    def ask(self, engine: Engine, about: Callable[[int, np.ndarray], Search[T]]) -> list[T]:
        """Drive a search behind the prompt of each judging case.

        Args:
            engine: What reads the prompts.
            about: Given which of `judged` it is, and the prior's log-probability of each item, what is searched.

        Returns:
            What the searches return, by case.
        """
        encoded, jobs = self.writing.encoded, []
        for i, ((person, row), log_mass) in enumerate(zip(self.judged, self._judged_log_masses, strict=True)):
            index = int(row.moment[0])
            prompt = render(
                self.writing.template,
                person.before(index),
                person.moments[index].context,
                encoded,
                self.writing.tokenizer,
                words=self.writing.words,
                max_tokens=self.writing.max_tokens,
                align=self.writing.align,
                tail=engine.prompt_tail,
                instead=self.instead(person),
            )
            jobs.append((prompt.token_ids, about(i, log_mass)))
        return engine.run(jobs)

    def learn(
        self,
        model: Any,
        options: Options,
        checkpoints: Path,
        held_out: Sequence[Batch],
        *,
        since: Path | None = None,
        people: Sequence[History] | None = None,
        max_minutes: float = math.inf,
        on_look: OnLook | None = None,
    ) -> Result:
        """Train a model on the people of the split, or some of them; see `genrec.finetune.train.train`."""
        return train(
            model,
            self.split.learn if people is None else people,
            self.writing,
            options,
            checkpoints,
            held_out=held_out,
            mass_of=self.held_out_mass if options.needs_prior else None,
            identity={
                "base": fingerprint(self.base),
                "since": fingerprint(since) if since else "",
                "prior": self.prior_name,
            },
            max_minutes=max_minutes,
            on_look=on_look,
        )

    def news(self, since: Card) -> list[History]:
        """Who did something since an adapter was trained, and some of the others, lest they be forgotten.

        Raises:
            TrainingError: If nobody did.
        """
        cut = datetime.fromisoformat(since.data["before"])
        new = [person for person in self.split.learn if person.moments[-1].at >= cut]
        if not new:
            raise TrainingError(
                f"the adapter {since.name!r} has learned from all that happened before {cut:%Y-%m-%d %H:%M}, and "
                "nothing that can be learned from has happened since",
                hint="Bring new events in with genrec import; the last part of them is held out to judge.",
            )
        others = [person for person in self.split.learn if person.moments[-1].at < cut]
        return new + others[: math.ceil(REPLAY * len(new))]  # they stand in an order that chance made

    def run(
        self,
        name: str,
        folder: Path,
        options: Options,
        *,
        since: Path | None = None,
        max_minutes: float = math.inf,
    ) -> tuple[Card, Result]:
        """Train and release; a run that was stopped goes on from its last checkpoint.

        Args:
            name: What the adapter is called.
            folder: Where it is written; its checkpoints are kept beside it until then.
            options: How to train.
            since: Folder of an adapter that learns on, from what is new and a replay of what is not.
            max_minutes: When to stop training by itself.

        Returns:
            The card, whose metrics compare with the prior and with the adapter before; what training did.

        Raises:
            TrainingError: If training fails.
            ModelError: If the adapter that is to learn on was made for something else.
        """
        before, people = None, None
        if since is not None:
            before = Card.read(since)
            before.check(base=self.base, template=self.writing.template)
            if before.method == "none":
                raise ModelError(f"{before.name!r} is the model as it is", hint="Leave --since out.")
            options = replace(options, method=before.method, rank=before.rank)  # type: ignore[arg-type]
            people = self.news(before)
        users = [person.user_id for person, _ in self.judged]
        ranks: dict[str, list[int]] = {"prior": self.ranks(None, Scoring())}
        self.say(_line("prior alone", ranks["prior"], users))
        untuned = self.engine(since)
        try:
            ranks["untuned"] = self.ranks(untuned, Scoring(name="masked"))
            self.say(_line("untuned model" if before is None else f"{before.name} alone", ranks["untuned"], users))
            if before is not None:
                ranks["before"] = self.ranks(untuned, _fused(before))
                self.say(_line(f"{before.name} with prior", ranks["before"], users))
        finally:
            untuned.close()
        lm = load_model(self.base) if before is None or since is None else load_adapted(self.base, since, before.method)
        untuned_logits = choice_logits(lm, self.judge_steps)
        nats = {"untuned": mean_loss(untuned_logits, self.judge_steps, 1.0, 0.0)}
        if before is not None:
            nats["before"] = mean_loss(untuned_logits, self.judge_steps, before.gamma, before.beta)
        card, result = self.release(
            lm, name, folder, options, nats=nats, since=since, people=people, max_minutes=max_minutes
        )
        tuned = self.engine(folder)
        try:
            ranks["tuned"] = self.ranks(tuned, Scoring(name="masked"))
            ranks["both"] = self.ranks(tuned, _fused(card))
        finally:
            tuned.close()
        card = self._judged_card(card, folder, ranks, nats)
        if not result.interrupted:
            shutil.rmtree(folder.parent / checkpoints_of(name), ignore_errors=True)
        self.say(_line("tuned model", ranks["tuned"], users))
        self.say(_line("tuned with prior", ranks["both"], users))
        return card, result

    def release(
        self,
        lm: Any,
        name: str,
        folder: Path,
        options: Options,
        *,
        nats: dict[str, float] | None = None,
        since: Path | None = None,
        people: Sequence[History] | None = None,
        max_minutes: float = math.inf,
    ) -> tuple[Card, Result]:
        """Train a model, weigh it beside the prior, and write the adapter, which no engine has judged yet.

        Args:
            lm: As for `learn`; it is on the CPU afterwards.
            name: What the adapter is called.
            folder: Where it is written; its checkpoints stay beside it.
            options: How to train.
            nats: As for `weigh`.
            since: Folder of the adapter that learns on.
            people: Who is learned from; those of the split when omitted.
            max_minutes: When to stop training by itself.

        Raises:
            TrainingError: If training fails.
        """
        result = self.learn(
            lm,
            options,
            folder.parent / checkpoints_of(name),
            self.fit_steps,
            since=since,
            people=people,
            max_minutes=max_minutes,
        )
        gamma, beta = self.weigh(result.model, "tuned", nats)
        card = replace(
            self._card(name, gamma, beta),
            method=options.method,
            rank=options.rank,
            objective=options.loss,
            data={
                "people": len(self.split.learn if people is None else people),
                "since": Card.read(since).name if since else None,
                "targets": result.n_targets,
                "before": self.split.cut.isoformat(),
                "steps": result.n_steps,
                "seconds": round(result.seconds),
            },
            options=asdict(options),
        )
        save(result.model, self.base, folder, card, self.writing.encoded.catalog, result.log)
        return card, result

    def fuse(self, name: str, folder: Path, *, since: Path | None = None) -> Card:
        """Fit how much the model and the prior count, without any training, and release that.

        Args:
            name: What the release of an untuned model's weights is called.
            folder: Where that is written.
            since: Folder of an adapter whose weights are fitted anew, in place, instead.

        Returns:
            The card, with the figures of prior, model and both.

        Raises:
            ModelError: If the adapter was made for something else.
        """
        old = Card.read(since) if since else None
        if old:
            old.check(base=self.base, template=self.writing.template)
        is_adapted = since is not None and old is not None and old.method != "none"
        lm = load_adapted(self.base, since, old.method) if is_adapted and since and old else load_model(self.base)
        nats: dict[str, float] = {}
        gamma, beta = self.weigh(lm, "model", nats)
        card = self._card(name, gamma, beta)
        if old:
            known: dict[str, Any] = {"created_at": card.created_at, "data": card.data} if old.method == "none" else {}
            card = replace(old, gamma=card.gamma, beta=card.beta, prior=card.prior, **known)
        ranks = {"prior": self.ranks(None, Scoring())}
        engine = self.engine(since if is_adapted else None)
        try:
            ranks["model"] = self.ranks(engine, Scoring(name="masked"))
            ranks["both"] = self.ranks(engine, _fused(card))
        finally:
            engine.close()
        if since is None:
            save_weights(folder, card, self.writing.encoded.catalog)
        users = [person.user_id for person, _ in self.judged]
        for way, found in ranks.items():
            self.say(_line(way, found, users))
        return self._judged_card(card, since or folder, ranks, nats)

    def weigh(self, lm: Any, way: str, nats: dict[str, float] | None = None) -> tuple[float, float]:
        """Fit how much a model and the prior count, and take the model off the GPU, which an engine wants for itself.

        Args:
            lm: The model.
            way: What the model is called in `nats`.
            nats: Is told what the judging choices cost under the prior, the model and both, where that is asked for.

        Returns:
            gamma and beta.
        """
        gamma, beta, _ = fit_weights(choice_logits(lm, self.fit_steps), self.fit_steps)
        if nats is not None:
            judged = choice_logits(lm, self.judge_steps)
            for key, weights in {"prior": (0.0, 1.0), way: (1.0, 0.0), "both": (gamma, beta)}.items():
                nats[key] = mean_loss(judged, self.judge_steps, *weights)
        lm.to("cpu")
        torch.cuda.empty_cache()
        return gamma, beta

    def _card(self, name: str, gamma: float, beta: float) -> Card:
        """What holds for all that is made here, of the model as it is."""
        return Card(
            name=name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            base=self.model,
            base_fingerprint=fingerprint(self.base),
            template=self.writing.template.name,
            template_fingerprint=self.writing.template.fingerprint,
            max_tokens=self.writing.max_tokens,
            features=tuple(self.writing.template.features),
            method="none",
            rank=0,
            objective="",
            gamma=round(gamma, 4),
            beta=round(beta, 4),
            prior=self.prior_name,
            data={"before": self.split.cut.isoformat()},
            licence=_licence(self.base),
        )

    def _judged_card(self, card: Card, folder: Path, ranks: dict[str, list[int]], nats: dict[str, float]) -> Card:
        """Write a card with what the judging cases say of it."""
        users = [person.user_id for person, _ in self.judged]
        metrics: dict[str, Any] = {
            way: {**summary(found, users), "nats": round(nats[way], 4)} for way, found in ranks.items()
        }
        for other in ("prior", "before"):
            if other in ranks:
                metrics[f"both - {other}"] = difference(ranks["both"], ranks[other], users)
        card = replace(card, metrics=metrics)
        card.write(folder)
        return card


def _fused(card: Card) -> Scoring:
    return Scoring(name="fused", gamma=card.gamma, beta=card.beta)


def _line(what: str, ranks: Sequence[int], people: Sequence[str]) -> str:
    found = summary(ranks, people)
    interval: Any = found["interval"]
    parts = [f"{name} {found[name]:.3f} [{interval[name][0]:.3f}, {interval[name][1]:.3f}]" for name in interval]
    return f"{what:<18}{'  '.join(parts)}  (n = {found['n']})"


def _licence(base: Path) -> str:
    """What the base model's folder says of its licence."""
    for name in ("LICENSE", "LICENSE.txt", "NOTICE"):
        if (base / name).is_file():
            return (base / name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[0][:80]
    return ""
