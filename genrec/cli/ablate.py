"""`genrec ablate`: what each part of the context is worth, by doing without it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pyarrow.compute as pc

from genrec import __version__
from genrec.cli._common import json_option, print_json, table, workspace_option
from genrec.cli.evaluate import LOOKS, look
from genrec.cli.train import SETTING, read_options
from genrec.context import Words
from genrec.decoding.scoring import Scoring
from genrec.errors import ConfigError, meant
from genrec.evaluation.ablation import (
    CLOCK,
    Kind,
    Part,
    Speech,
    Told,
    otherwise,
    parts,
    placed,
    places_by_prior,
    row,
    tables,
    targets,
    write,
)
from genrec.evaluation.split import Split, hashed
from genrec.finetune.adapter import checkpoints_of
from genrec.models import fingerprint
from genrec.workspace import CACHE, Workspace, open_workspace

if TYPE_CHECKING:
    from genrec.engines.base import Engine
    from genrec.finetune.options import Options
    from genrec.finetune.session import Session
    from genrec.priors.base import Prior

ENGINES = ("none", "transformers", "vllm")
SAMPLE = 1000
"""People by whom it is told which features say anything, and how long choices are."""
WHOLE, AGAIN = Part(name="whole"), Part(name="another seed")
FORMAT = 3
"""Of what is kept; one more whenever a unit finds something else."""


@click.command("ablate")
@workspace_option
@click.option(
    "--without",
    "names",
    metavar="PART",
    multiple=True,
    help="A feature such as since, all of them (all), profile, action:NAME or source:NAME; repeat for several, one at "
    "a time. Every part there is when omitted.",
)
@click.option(
    "--now",
    type=click.Choice(["none", "request", "exact"]),
    default="exact",
    show_default=True,
    help="What is known of when the choice is made: nothing, when it was asked for (the last full third hour), or its "
    "very instant.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="What answers: none for the prior. The settings' if omitted; for auto, transformers on a CPU.",
)
@click.option("--refit", is_flag=True, help="Train nothing: fit prior and weights alone, for the model in use.")
@click.option("--steps", default=100, show_default=True, help="Training steps, of the whole and without each part.")
@click.option("--set", "more", type=SETTING, multiple=True, help="Any other option of training, as for genrec train.")
@click.option("--held-out", default=0.1, show_default=True, help="Share of all moments, the last ones, to judge by.")
@click.option("--cases", default=200, show_default=True, help="Most people to judge by, and to fit weights to.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write JSON and Markdown here.")
@json_option
def command(
    workspace: Path,
    names: tuple[str, ...],
    now: Told,
    engine: str | None,
    refit: bool,
    steps: int,
    more: tuple[tuple[str, str], ...],
    held_out: float,
    cases: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Say what each part of the context is worth: all is made again without it, and judged by the same choices.

    Without a part nobody has it: the model learns from prompts that lack it (a LoRA of the same seed, steps and
    people), and the prior is fitted without it, if it knows of it at all. Differences to the whole are paired, with
    95 % intervals, bootstrapped over people; "tied" means that the interval holds zero. What another seed of the whole
    changes is chance, and a part that changes no more may be worth nothing. Sensitivity is something else: the whole as
    it is, while its last line says another person's word or none. What was done before a stop is taken up again when
    the same is typed.
    """
    if not 0 < held_out < 1 or cases < 1 or steps < 1:
        raise ConfigError("held-out is a share between 0 and 1, and cases and steps are at least 1")
    options = None if refit else read_options(dict(more) | {"max_steps": str(steps)})
    with (
        open_workspace(workspace, adapter=None if refit else "none") as opened,
        closing(Trial(opened, now, engine, options, held_out=held_out, cases=cases)) as trial,
    ):
        chosen = trial.parts(names)
        units = trial.units(chosen)
        done: dict[str, dict[str, Any]] = {}
        for n, (name, make) in enumerate(units.items(), 1):
            done[name] = trial.kept(name, make)
            click.echo(f"{n} of {len(units)}: {name}", err=True)
        trial.close()
        shutil.rmtree(trial.trained(WHOLE), ignore_errors=True)
        people = [case.user_id for case in trial.split.judge]
        rows = {name: row(one, done["whole"], people) for name, one in done.items()}
        cut = trial.split.cut.isoformat()
        n_looks = look(workspace / LOOKS, [cut], trial.asked)
    found = {
        "cut": cut,
        "n": rows["whole"]["n"],
        "people": rows["whole"]["people"],
        "settings": trial.asked,
        "whole": rows["whole"],
        "again": rows.get(AGAIN.name),
        "without": {part.name: rows[f"without {part.name}"] for part in chosen},
        "sensitivity": {name: rows[name] for name in trial.leanings(chosen)},
        "notes": [
            f"Look number {n_looks} at what was held out here ({LOOKS} has them all).",
            f"Parts looked at: {len(chosen)}. Of those worth nothing, one in twenty seems to be worth something.",
        ],
    }
    if report:
        write(found, report)
    if as_json:
        print_json(found)
        return
    for title, lines in tables(found):
        click.echo(f"{title}\n{table(lines)}\n")
    click.echo("\n".join(found["notes"]))


class Trial:
    """The choices of a workspace's people, asked with all that is known, and without one part after the other."""

    def __init__(
        self, opened: Workspace, now: Told, engine: str | None, options: Options | None, *, held_out: float, cases: int
    ) -> None:
        settings = opened.settings
        name = "none" if (engine or settings.engine) == "none" else opened.judging_engine(engine)
        self.opened, self.options = opened, options
        self.base: Session | None = None
        """What training works with; None for the prior alone."""
        self.running: Engine | None = None
        if name != "none":
            self.base = opened.training(held_out=held_out, n_cases=cases, engine=name)
        split = self.base.split if self.base else opened.split(held_out=held_out, n_cases=cases)
        opened.check_unseen(split.cut)
        words = Words(time_zone=settings.time_zone, country=settings.country)
        self.speech = Speech(opened.template, words, opened.catalog)
        fit, judge = ([self.speech.told(case, now) for case in some] for some in (split.fit, split.judge))
        self.split = replace(split, fit=fit, judge=judge)
        self.silent = dict.fromkeys(CLOCK, "") if now == "none" else {}
        self.prior = opened.card.prior if opened.card else settings.prior
        self.asked = {
            "engine": name,
            "model": settings.model if self.base else None,
            "adapter": opened.adapter_name,
            "prior": self.prior,
            "now": now,
            "held_out": held_out,
            "cases": cases,
            "training": asdict(options) if self.base and options else None,
        }
        same = [FORMAT, __version__, settings, self.asked, opened.template.fingerprint, opened.catalog.fingerprint]
        same += [opened.store.mark(), opened.card, fingerprint(self.base.base) if self.base else ""]
        users = [person.user for person in (*split.learn, *fit, *judge) if person.user]
        same += [(user.user_id, user.time_zone, dict(user.attributes), sorted(user.struck)) for user in users]
        same += [(one.item_id, one.reader, one.content) for one in opened.store.media()]
        key = hashlib.blake2b(repr(same).encode(errors="surrogatepass"), digest_size=8)
        for rows in (*opened.store.items(), *opened.store.edges()):
            key.update(rows.serialize())
        self.folder = opened.folder / CACHE / "ablations" / key.hexdigest()

    def close(self) -> None:
        """Stop the engine that runs."""
        if self.running:
            self.running.close()
        self.running = None

    def parts(self, names: Collection[str]) -> list[Part]:
        """Those of these names; all there are when there is none.

        Raises:
            ConfigError: If there is nothing of that name.
        """
        store, people = self.opened.store, [*self.split.judge, *self.split.fit, *self.split.learn]
        actions = {name for rows in store.choices() for name in pc.unique(rows["action"]).to_pylist()}
        events: dict[Kind, Iterable[str]] = {"action": actions, "source": store.summary().sources}
        said = self.speech.features(people[:SAMPLE])
        offered = {part.name: part for part in parts(self.opened.template, said, people, events)}
        if unknown := [name for name in names if name not in offered]:
            raise ConfigError(
                f"there is no {unknown[0]!r} to do without. {meant(unknown[0], offered)}".rstrip(),
                hint=f"There are: {', '.join(offered) or 'none'}.",
            )
        return [offered[name] for name in dict.fromkeys(names or offered)]

    def units(self, chosen: Sequence[Part]) -> dict[str, partial[dict[str, Any]]]:
        """All that is to be done, by names, in order; each gives places and what else is to be known."""
        units = {WHOLE.name: partial(self.made, WHOLE), **self.leanings(chosen)}
        if self.options and not self.trained(WHOLE).is_dir() and not all(self.file(name).is_file() for name in units):
            self.file(WHOLE.name).unlink(missing_ok=True)  # what leans on it needs its weights
        if self.base and self.options:
            units[AGAIN.name] = partial(self.made, AGAIN)
        return units | {f"without {part.name}": partial(self.made, part) for part in chosen}

    def leanings(self, chosen: Sequence[Part]) -> dict[str, partial[dict[str, Any]]]:
        """Those that tell the whole something else; of what it is not told at all there are none, nor of a prior."""
        return {
            f"{part.name} {how}": partial(self.leaning, part, how)
            for part in (chosen if self.base else ())
            if not part.features or set(part.features) - set(self.silent)
            for how in part.ways
        }

    def file(self, name: str) -> Path:
        """Keeps what a unit found."""
        return self.folder / f"{hashed(name).hex()}.json"

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a unit finds, or found before a stop; it names nobody."""
        file = self.file(name)
        if not file.is_file():
            found = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            new.write_text(json.dumps(found), encoding="utf-8")
            os.replace(new, file)
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known

    def trained(self, part: Part) -> Path:
        """Where an adapter is while it is needed."""
        return self.folder / hashed(part.name).hex()

    def without(self, part: Part) -> Split:
        """People without a part."""
        return part.split(self.split, self.opened.store, max_events=self.opened.settings.history.max_events)

    def fitted(self, part: Part) -> Prior:
        """The prior without it."""
        log = part.log(self.opened.store)
        return self.opened.fitted_prior(
            self.prior, split=self.split, without=part.features, clock=not self.silent, log=log
        )

    def session(self, part: Part) -> Session:
        """What trains and judges without it."""
        assert self.base is not None
        return replace(
            self.base,
            split=self.without(part),
            prior=self.fitted(part),
            prior_name=self.prior,
            writing=replace(self.base.writing, template=part.template(self.opened.template)),
            instead=lambda case: self.silent,
        )

    @cached_property
    def whole(self) -> Session:
        """What trains and judges with everything."""
        return self.session(WHOLE)

    def made(self, part: Part) -> dict[str, Any]:
        """Make all anew without a part, and judge it."""
        if self.base is None:
            return {"places": places_by_prior(self.fitted(part), self.without(part).judge, self.opened.catalog)}
        from genrec.finetune.methods import load_adapted, load_model

        self.close()  # one model at a time
        session = self.whole if part in (WHOLE, AGAIN) else self.session(part)
        if self.options is None:
            adapter, card = self.answering, self.opened.card
            lm = load_adapted(self.base.base, adapter, card.method) if adapter and card else load_model(self.base.base)
            return self.placed(session, adapter, *session.weigh(lm, "model"))
        adapter = self.trained(part)
        seed = self.options.seed + (part is AGAIN)
        options = replace(self.options, seed=seed, step_tokens=self.step_tokens(session, self.options.step_tokens))
        card, result = session.release(load_model(self.base.base), adapter.name, adapter, options)
        if result.interrupted:
            raise click.Abort
        found = self.placed(session, adapter, card.gamma, card.beta)
        shutil.rmtree(self.folder / checkpoints_of(adapter.name), ignore_errors=True)
        if part is not WHOLE:
            self.close()
            shutil.rmtree(adapter)
        return found

    def leaning(self, part: Part, how: str) -> dict[str, Any]:
        """Judge the whole as it is, while a part is told otherwise."""
        cases, instead = otherwise(part, how, self.split, self.without(part), self.speech)
        template = part.template(self.opened.template) if part.profile and how == "silenced" else self.opened.template
        session = replace(
            self.whole,
            split=replace(self.split, judge=cases),
            writing=replace(self.whole.writing, template=template),
            instead=lambda case: instead(case) | self.silent,
        )
        whole = self.kept(WHOLE.name, partial(self.made, WHOLE))
        return self.placed(session, self.answering, whole["gamma"], whole["beta"])

    @property
    def answering(self) -> Path | None:
        """What the whole answers with: the adapter that was trained, or the one in use; None for none."""
        if self.options:
            return self.trained(WHOLE)
        return self.opened.adapter if self.opened.card and self.opened.card.method != "none" else None

    def placed(self, session: Session, adapter: Path | None, gamma: float, beta: float) -> dict[str, Any]:
        """Places and nats of all that was chosen; None for a case that a prompt cannot tell."""
        self.running = self.running or session.engine(adapter)
        trie, scoring = session.writing.encoded.trie, Scoring(name="fused", gamma=gamma, beta=beta)
        rows = [targets(case, self.opened.catalog) for case, _ in session.judged]
        found = session.ask(self.running, lambda i, log_mass: placed(trie, rows[i], scoring, log_mass))
        by_user = {case.user_id: one for (case, _), one in zip(session.judged, found, strict=True)}
        each = [by_user.get(case.user_id, (None, None)) for case in self.split.judge]
        places, nats = zip(*each, strict=True)
        return {"places": places, "nats": nats, "gamma": gamma, "beta": beta}

    def step_tokens(self, session: Session, n_tokens: int) -> int:
        """How long steps are without a part, so that they hold as many choices as those of the whole."""
        from genrec.finetune.packing import pack

        def lengths(one: Session) -> tuple[int, float]:
            packed = pack([row for person in one.split.learn[:SAMPLE] for row in one.writing.rows(person)])
            return packed.lengths[0], sum(packed.lengths[1:]) / len(packed.target)

        (shared, ours), (shared_by_whole, theirs) = lengths(session), lengths(self.whole)
        return max(1, round(shared + (n_tokens - shared_by_whole) * ours / theirs))
