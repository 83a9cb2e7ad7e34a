"""The road of one recommendation: history → prompt → search → rerank → recommendation, and why.

Where the language model can be asked for words alone, its words are grounded instead of searched: see `genrec.ground`.
Stages are values in, values out, and only the search is batched across people. Knows the stages, not what is inside
them; where the parts come from is `genrec.workspace`'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np

from genrec.assortment import Added, add_items, retire_items
from genrec.catalog import Catalog, EncodedCatalog
from genrec.context import Words, clock
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import NO_LIMITS, Limits, Ranking, place, place_by_weight, score, search
from genrec.engines.base import Engine, Job, Search, Usage
from genrec.engines.chat import CHARS_PER_TOKEN, Chat
from genrec.engines.requests import all_of
from genrec.errors import ConfigError, EmptyCatalogError
from genrec.events import Context, Item
from genrec.explain import Variant, explained, variants
from genrec.filters import Filters
from genrec.ground import Grounded, Grounder, question
from genrec.history import History, read_history
from genrec.priors.base import Prior
from genrec.prompt import ALIGN, Prompt, Template, render
from genrec.recommendation import Query, RankedItem, Recommendation
from genrec.rerank import Candidate, Reranker, n_candidates, rerank
from genrec.sources.times import is_zone
from genrec.sources.zones import zone_at
from genrec.store import Store
from genrec.tokenizer import ByteTokenizer, Tokenizer
from genrec.trie import AnyTrie

Stage = Literal["history", "prompt", "search", "ground", "rerank"]
Trace = Callable[[str, Stage, Any], None]
"""Is shown what each stage made of each person: ``(user_id, stage, value)``."""

_TOGETHER = 8  # variants that a server's engine is asked about at once for one explanation
_STRETCH = 256  # neighbouring rows looked at as one


@dataclass(kw_only=True)
class _Draft:
    """One person's answer while it is being made."""

    query: Query
    show: Trace
    notes: list[str]
    history: History
    now: Context
    trie: AnyTrie | None
    """The catalogue as it is when the answer is begun; only a language model needs it."""
    n_items: int
    """How many items it has; what is added meanwhile is for the next answer."""
    shortlist: np.ndarray | None
    """Which rows alone are to be ranked, ascending; all when None."""
    nothing_left: bool
    """Whether these leave no item, of which a note tells."""
    live: np.ndarray | None
    """Which catalogue rows may be recommended; all when None. Shape ``(n_items,)``, bool."""
    by_prior: bool = False
    """Whether the prior alone answers, although there is an engine."""
    prompt: Prompt | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    @property
    def allowed(self) -> np.ndarray | None:
        """Which rows may stand in the list: live ones, of the shortlist where there is one. All when None."""
        if self.shortlist is None:
            return self.live
        listed = np.zeros(self.n_items, bool)
        listed[self.shortlist] = True
        return listed

    def done(self, stage: Stage, value: Any, seconds: float) -> None:
        """Take down how long a stage took and show what it made."""
        self.timings_s[stage] = seconds
        self.show(self.query.user_id, stage, value)


class Recommender:
    """Recommends items of one catalogue to the people of one store.

    Args:
        store: Who did what.
        catalog: What can be recommended.
        prior: Answers where there is no engine; the other voice in `fused` scoring.
        engine: The language model; without one, and without `chat`, the prior answers alone.
        chat: A language model that is asked for titles instead; prior and scoring have no say then.
        grounder: Finds the items that those titles name; by their exact names when omitted.
        encoded: The catalogue in the engine's token ids; encoded now when omitted.
        template: How a history is written, and what its domain asks for care with; needed with an engine.
        rerankers: The chain, in order.
        scoring: `auto` takes `fused` where there is a prior, else `joint`; see `Scoring`.
        limits: Where a search may stop before it is certain.
        max_events: Most events read back for one person.
        max_tokens: Longest prompt; the engine's own limit where that is less.
        words: How contexts are put into words; its clock is that of people who have none of their own.

    Raises:
        ConfigError: If what was given cannot answer.
        EmptyCatalogError: If there is no item.
    """

    def __init__(
        self,
        *,
        store: Store,
        catalog: Catalog,
        prior: Prior | None = None,
        engine: Engine | None = None,
        chat: Chat | None = None,
        grounder: Grounder | None = None,
        encoded: EncodedCatalog | None = None,
        template: Template | None = None,
        rerankers: Sequence[Reranker] = (),
        scoring: Scoring | Literal["auto"] = "auto",
        limits: Limits = NO_LIMITS,
        max_events: int = 200,
        max_tokens: int = 1024,
        words: Words | None = None,
    ) -> None:
        if not len(catalog):
            raise EmptyCatalogError("the catalogue has no items", hint="Bring some in: genrec import SOURCE")
        if engine is None and prior is None and chat is None:
            raise ConfigError("a recommender needs an engine, a prior or both")
        if engine is not None and chat is not None:
            raise ConfigError("a recommender takes an engine or a chat, not both")
        if (engine or chat) is not None and template is None:
            raise ConfigError("a recommender with an engine needs a prompt template")
        self.store, self.catalog, self.prior, self.engine = store, catalog, prior, engine
        self.template, self.rerankers = template, tuple(rerankers)
        self.scoring = Scoring(name="joint" if prior is None else "fused") if scoring == "auto" else scoring
        if engine is not None and self.scoring.name == "fused" and prior is None:
            raise ConfigError("fused scoring needs a prior", hint='Set prior = "popularity" in genrec.toml.')
        self.limits, self.max_events, self.words = limits, max_events, words or Words()
        self.filters = Filters(catalog)
        self.chat, self.grounder = chat, grounder or Grounder(catalog) if chat else None
        self.tokenizer: Tokenizer = engine.tokenizer if engine else ByteTokenizer()
        if chat is not None:
            self.encoded = encoded or catalog.encode(self.tokenizer)
            self.max_tokens = CHARS_PER_TOKEN * max_tokens
        if engine is not None:
            self.encoded = encoded or catalog.encode(engine.tokenizer)
            longest_item = self.encoded.longest
            self.max_tokens = min(max_tokens, engine.max_tokens - longest_item)
            if self.max_tokens < 1:
                raise ConfigError(
                    f"the longest item takes {longest_item} tokens, and {engine.model} reads {engine.max_tokens}",
                    hint=f"Raise max_tokens under [engines.{engine.name}] in genrec.toml, or choose another model.",
                )

    def recommend(
        self,
        user_id: str,
        *,
        at: datetime | str | None = None,
        k: int = 10,
        place: str | None = None,
        position: tuple[float, float] | None = None,
        device: str | None = None,
        exclude_seen: bool = False,
        exclude_refused: bool = True,
        categories: Sequence[str] = (),
        where: Mapping[str, str] | None = None,
        near: tuple[float, float] | None = None,
        within_km: float | None = None,
        candidates: Sequence[str] = (),
        explain: bool | Literal["context"] = False,
        trace: Trace | None = None,
    ) -> Recommendation:
        """Recommend to one person; the arguments are those of `Query`.

        Raises:
            EmptyCatalogError: If no item is left to recommend.
            ConfigError: If `at` cannot be read, `k` is below 1, or a filter asks for what no item has.
        """
        query = Query(
            user_id=user_id,
            at=at,
            k=k,
            place=place,
            position=position,
            device=device,
            exclude_seen=exclude_seen,
            exclude_refused=exclude_refused,
            categories=tuple(categories),
            where=where or {},
            near=near,
            within_km=within_km,
            candidates=tuple(candidates),
            explain=explain,
        )
        [answer] = self.recommend_many([query], trace=trace)
        if not answer.items:
            refused = exclude_refused and self.store.refused(user_id, answer.at) & self.catalog.row.keys()
            hints = (
                "Ask for less: fewer conditions, or more kilometres." if query.conditions else "",
                "Allow what the person already has: --include-seen." if exclude_seen else "",
                "Allow what the person refused: --include-refused." if refused else "",
            )
            raise EmptyCatalogError(answer.notes[-1], hint=" ".join(filter(None, hints)) or None)
        return answer

    def add_items(self, items: Iterable[Item]) -> Added:
        """Add or replace items, durably; see `genrec.assortment.add_items`. The next search sees them."""
        added = add_items(self.store, self.catalog, items)
        if (self.engine or self.chat) is not None:
            self.encoded.grow()
        return added

    def retire_items(self, item_ids: Iterable[str]) -> set[str]:
        """Take items off offer, durably; see `genrec.assortment.retire_items`. The next search leaves them out."""
        return retire_items(self.store, self.catalog, item_ids)

    def recommend_many(self, queries: Iterable[Query], *, trace: Trace | None = None) -> list[Recommendation]:
        """Recommend to several people in one run of the engine.

        Args:
            queries: Who and when. A person for whom no item is left gets an empty list and a note. Taken as the engine
                gets to them, maybe in another thread; one that cannot be answered ends all then.
            trace: Is shown what each stage made, maybe in another thread.

        Returns:
            One recommendation for each query, in their order.

        Raises:
            ConfigError: If a query's `at` cannot be read, or a filter asks for what no item has.
        """
        begun = self._begun(queries, trace or _ignore)
        drafts, rankings = self._ground(begun) if self.chat else self._search(begun)
        answers = [self._finish(draft, ranking) for draft, ranking in zip(drafts, rankings, strict=True)]
        return self._explain(drafts, answers)

    def places(self, queries: Sequence[Query], item_ids: Sequence[str], *, within: int = 20) -> list[int]:
        """Find how far down the list an item would stand, exactly, before any reranking: for judging.

        Args:
            queries: Who and when; how many items are asked for does not matter.
            item_ids: The item of each query.
            within: How far down places are told apart.

        Returns:
            For each query how many items come before it; `within` where so many or more do, or it is not on offer.

        Raises:
            ConfigError: If the model only writes titles, or as `recommend_many` does.
        """
        if self.chat is not None:
            raise ConfigError("a model that writes titles gives no places", hint="Choose vllm, transformers or none.")
        begun = self._begun(queries, _ignore)
        rows = [self.catalog.row.get(item_id, -1) for item_id in item_ids]
        if self.engine is None:
            return [self._place_by_prior(draft, row, within) for draft, row in zip(begun, rows, strict=True)]
        return self.engine.run(
            (_ids(draft), self._placing(draft, row, within), draft.usage)
            for draft, row in zip(begun, rows, strict=True)
        )

    async def answer(self, query: Query, *, by_prior: bool = False) -> Recommendation:
        """Recommend to one person on the running event loop, beside any number of others: for a server.

        The store is read and the prompt written in a worker thread, the search is the engine's `drive`. Whoever
        cancels it ends the search. As in `recommend_many`, a person for whom no item is left gets an empty list.

        Args:
            query: Who and when.
            by_prior: Leave the engine out, for instance because it is down.

        Raises:
            ConfigError: If the query's `at` cannot be read, or the prior is to answer and there is none.
            EngineError: If the engine fails; no part of a list is ever given for the whole.
        """
        if by_prior and self.prior is None:
            raise ConfigError("there is no prior that could answer", hint='Set scoring = "fused" in genrec.toml.')

        def prepare() -> _Draft:
            draft = self._look_back(query, _ignore)
            draft.by_prior = by_prior
            if not by_prior:
                self._write(draft)
            return draft

        draft = await asyncio.to_thread(prepare)
        started_s = time.perf_counter()
        if self.chat is not None:
            _, found = await asyncio.to_thread(self._ground, [draft])
            return self._finish(draft, found[0])
        if self.engine is None or by_prior:
            ranking = await asyncio.to_thread(self._by_prior, draft)
        else:
            ranking = await self.engine.drive(_ids(draft), self._searching(draft), draft.usage)
        draft.done("search", ranking, time.perf_counter() - started_s)
        answer = self._finish(draft, ranking)
        if not query.explain:
            return answer
        if self.engine is None or by_prior:
            return (await asyncio.to_thread(self._explain, [draft], [answer]))[0]
        started_s = time.perf_counter()
        left_out = await asyncio.to_thread(self._leave_out, draft, answer)
        weights: list[np.ndarray] = []
        for start in range(0, len(left_out), _TOGETHER):  # the others' searches want the cache, too
            some = left_out[start : start + _TOGETHER]
            weights += await all_of(self.engine.drive(*self._weighing_job(*one)) for one in some)
        return explained(answer, [v for v, _ in left_out], weights, time.perf_counter() - started_s)

    def prompts(self, queries: Iterable[Query]) -> list[Prompt]:
        """What the language model would read for each query; raises as `recommend_many` does.

        Raises:
            ConfigError: If there is no engine.
        """
        if self.engine is None and self.chat is None:
            raise ConfigError("without an engine there is no prompt", hint="Choose one with --engine.")
        return [draft.prompt for draft in self._begun(queries, _ignore) if draft.prompt is not None]

    def _begun(self, queries: Iterable[Query], show: Trace) -> Iterator[_Draft]:
        """Stages 1 and 2 of each as it is asked for, so that an engine can be at work on those before it."""
        for query in queries:
            draft = self._look_back(query, show)
            self._write(draft)
            yield draft

    def _look_back(self, query: Query, show: Trace) -> _Draft:
        """Stage 1: what the person did before the moment, and what may be recommended."""
        if query.explain and self.chat is not None:
            raise ConfigError(
                "a model that writes titles gives no log-probabilities, so nothing speaks for an item",
                hint="Choose vllm, transformers or none.",
            )
        started_s = time.perf_counter()
        notes: list[str] = []
        user = self.store.user(query.user_id)
        own_zone = user.time_zone if user else None
        if own_zone and not is_zone(own_zone):
            notes.append(
                f"{own_zone!r}, the time zone of {query.user_id}, is not known on this machine: "
                "the workspace's clock counts."
            )
            own_zone = None
        there = zone_at(*query.position) if query.position else None
        home = own_zone or self.words.time_zone
        zone = there or home
        at, named_zone = instant(query.at, clock(zone))
        if not named_zone:
            whose = "the position" if there else query.user_id if own_zone else "the workspace"
            notes.append(f"{query.at} names no time zone: read in {zone}, the clock of {whose}.")
            if happened := _shifted(at):
                notes.append(f"{query.at} {happened} in {zone} when the clocks changed: write it with its offset.")
                at = at.astimezone(UTC).astimezone(at.tzinfo)  # what the clock showed then
        history = read_history(self.store, query.user_id, at, max_events=self.max_events)
        if zone != home:  # what names no clock happened by the one at home
            history = replace(history, moments=tuple(moment.on_clock(home) for moment in history.moments))
        if not history.moments:
            based_on = "the profile and the context" if user else "the context"
            notes.append(
                f"Nothing that {query.user_id} chose before {at:%Y-%m-%d %H:%M} is known: "
                f"recommended from {based_on} alone."
            )
        trie = self.encoded.trie if self.engine is not None else None
        n_items = len(self.catalog) if trie is None else trie.n_leaves
        row = self.catalog.row
        refused = self.store.refused(query.user_id, at) & row.keys() if query.exclude_refused else set()
        had = (self.store.item_ids(query.user_id, at) - refused) & row.keys() if query.exclude_seen else set()
        if n := len(refused):
            notes.append(f"{n} item{'s' * (n > 1)} that {query.user_id} refused {'are' if n > 1 else 'is'} left out.")
        live = self.filters.live(
            n_items,
            categories=query.categories,
            where=query.where,
            near=query.near,
            within_km=query.within_km,
            without=(row[item_id] for item_id in had | refused),
        )
        shortlist = None
        if query.candidates:
            rows = {self.catalog.row[item_id] for item_id in query.candidates if item_id in self.catalog.row}
            if n_unknown := len(set(query.candidates)) - len(rows):
                notes.append(f"The catalogue lacks {n_unknown} of the {len(set(query.candidates))} candidates.")
            shortlist = np.array(sorted(row for row in rows if row < n_items and (live is None or live[row])), np.int64)
        nothing_left = (live is not None and not live.any()) or (shortlist is not None and not len(shortlist))
        if nothing_left:
            notes.append(_nothing_left(query, n_items, len(had), len(refused)))
        latitude, longitude = query.position or (None, None)
        now = Context(time_zone=zone, place=query.place, latitude=latitude, longitude=longitude, device=query.device)
        draft = _Draft(
            query=query,
            show=show,
            notes=notes,
            history=history,
            now=now,
            trie=trie,
            n_items=n_items,
            live=live,
            shortlist=shortlist,
            nothing_left=nothing_left,
        )
        draft.done("history", history, time.perf_counter() - started_s)
        return draft

    def _write(self, draft: _Draft) -> None:
        """Stage 2: the history as a prompt that ends where the next item begins; only a language model needs one."""
        if self.engine is None and self.chat is None:
            return
        started_s = time.perf_counter()
        draft.prompt = self._prompt(draft.history, draft.now)
        if self.chat is not None:  # which reads text: its turns alone
            n_titles = n_candidates(self.rerankers, draft.query.k)
            turns = question(draft.prompt, n_titles, new_only=draft.query.exclude_seen)
            draft.prompt = replace(draft.prompt, turns=turns, lines=(), token_ids=())
        draft.done("prompt", draft.prompt, time.perf_counter() - started_s)

    def _prompt(self, history: History, now: Context, instead: Mapping[str, str] | None = None) -> Prompt:
        assert self.template is not None
        return render(
            self.template,
            history,
            now,
            self.encoded,
            self.tokenizer,
            words=self.words,
            max_tokens=min(self.max_tokens, self.engine.max_tokens - self.encoded.longest)
            if self.engine
            else self.max_tokens,
            align=ALIGN if self.engine else None,
            tail=self.engine.prompt_tail if self.engine else 0,
            instead=instead,
        )

    def _search(self, begun: Iterable[_Draft]) -> tuple[list[_Draft], Sequence[Ranking | Grounded]]:
        """Stage 3: the best items under the scoring, of all people at once, some of them still being begun."""
        started_s, drafts = time.perf_counter(), list[_Draft]()

        def each() -> Iterator[_Draft]:
            for draft in begun:
                drafts.append(draft)
                yield draft

        if self.engine is None:
            rankings = [self._by_prior(draft) for draft in each()]
        else:
            rankings = self.engine.run((_ids(draft), self._searching(draft), draft.usage) for draft in each())
        begun_s = sum(sum(draft.timings_s.values()) for draft in drafts)  # counted as theirs, whatever ran beside it
        share_s = (time.perf_counter() - started_s - begun_s) / max(1, len(drafts))
        for draft, ranking in zip(drafts, rankings, strict=True):
            draft.done("search", ranking, share_s)
        return drafts, rankings

    def _ground(self, begun: Iterable[_Draft]) -> tuple[list[_Draft], Sequence[Ranking | Grounded]]:
        """Stage 3 where the model writes titles: the items that they name, of all people at once."""
        assert self.chat is not None
        assert self.grounder is not None
        drafts = list(begun)
        started_s = time.perf_counter()
        ks = [n_candidates(self.rerankers, draft.query.k) for draft in drafts]
        prompts = [draft.prompt for draft in drafts if draft.prompt]
        answers = self.chat.answers([prompt.turns for prompt in prompts], max(ks, default=0))
        found = [
            self.grounder.ground(written, k=k, live=draft.allowed)
            for draft, written, k in zip(drafts, answers, ks, strict=True)
        ]
        share_s = (time.perf_counter() - started_s) / max(1, len(drafts))
        for draft, grounded in zip(drafts, found, strict=True):
            draft.notes.append(grounded.note(self.chat.model))
            draft.done("ground", grounded, share_s)
        return drafts, found

    def _searching(self, draft: _Draft) -> Search[Ranking]:
        """The search for one person; the prior is asked when the engine begins it, not for all people beforehand."""
        assert draft.trie is not None
        k = n_candidates(self.rerankers, draft.query.k)
        if draft.shortlist is None:
            log_mass = self._log_mass(draft) if self.prior and self.scoring.normalised else None
            return (
                yield from search(
                    draft.trie,
                    k=k,
                    scoring=self.scoring,
                    live=draft.live,
                    log_mass=log_mass,
                    limits=self.limits,
                    margin=self.engine.margin if self.engine else 1.0,
                )
            )
        rows = draft.shortlist
        weights = yield from self._weighing(draft, self.scoring)
        best = _best(weights, k)
        return Ranking(rows=rows[best], logprobs=weights[best], n_rounds=1, n_opened=len(rows))

    def _weighing(self, draft: _Draft, scoring: Scoring) -> Search[np.ndarray]:
        """The weights of a draft's shortlist."""
        assert draft.trie is not None
        assert draft.shortlist is not None
        log_mass = self._log_mass(draft) if scoring.name == "fused" else None
        return (yield from score(draft.trie, draft.shortlist, scoring=scoring, live=draft.live, log_mass=log_mass))

    def _placing(self, draft: _Draft, row: int, within: int) -> Search[int]:
        if not 0 <= row < draft.n_items:
            return within
        assert draft.trie is not None
        log_mass = self._log_mass(draft) if self.prior and self.scoring.normalised else None
        return (
            yield from place(
                draft.trie, row, within=within, scoring=self.scoring, live=draft.allowed, log_mass=log_mass
            )
        )

    def _place_by_prior(self, draft: _Draft, row: int, within: int) -> int:
        log_mass, allowed = self._log_mass(draft), draft.allowed
        if not 0 <= row < draft.n_items or (allowed is not None and not allowed[row]):
            return within
        return min(place_by_weight(log_mass, row, allowed), within)

    def _by_prior(self, draft: _Draft) -> Ranking:
        log_mass = self._log_mass(draft)
        if (allowed := draft.allowed) is not None:
            log_mass = np.where(allowed, log_mass, -np.inf)
        best = _best(log_mass, n_candidates(self.rerankers, draft.query.k))
        return Ranking(rows=best, logprobs=log_mass[best], n_rounds=0, n_opened=0)

    def _log_mass(self, draft: _Draft) -> np.ndarray:
        assert self.prior is not None
        log_mass = self.prior.log_mass(draft.history, draft.now)
        if (n_lacking := draft.n_items - len(log_mass)) > 0:  # the prior was fitted before they came
            least = log_mass.min(where=log_mass > -np.inf, initial=0.0)
            log_mass = np.pad(log_mass, (0, n_lacking), constant_values=least)
        return log_mass[: draft.n_items]

    def _finish(self, draft: _Draft, ranking: Ranking | Grounded) -> Recommendation:
        """Stage 4: the list that the person gets."""
        started_s = time.perf_counter()
        query, history = draft.query, draft.history
        engine = None if draft.by_prior else self.engine
        is_distribution = self.chat is None and (engine is None or self.scoring.normalised)
        candidates = [
            self._candidate(int(row), float(logprob), is_distribution)
            for row, logprob in zip(ranking.rows, ranking.logprobs, strict=True)
        ]
        kept = rerank(self.rerankers, candidates, history, draft.now, query.k)
        if candidates and not kept:
            draft.notes.append(f"The rerankers left out all {len(candidates)} candidates for {query.user_id}.")
        elif not kept and self.chat is None and not draft.nothing_left:
            draft.notes.append(f"No item has any probability for {query.user_id}.")
        if isinstance(ranking, Ranking) and not ranking.is_exact:
            draft.notes.append(
                "Approximate: a limit of the search was reached, "
                + (
                    f"and a branch left unopened could beat the last item by up to {ranking.gap:.3g} nats."
                    if np.isfinite(ranking.gap)
                    else "and fewer items were found than there are."
                )
            )
        draft.done("rerank", kept, time.perf_counter() - started_s)
        if self.template and self.template.caution:
            draft.notes.append(self.template.caution)
        model = engine or self.chat
        return Recommendation(
            user_id=query.user_id,
            at=history.at,
            context=draft.now,
            items=tuple(
                RankedItem(
                    rank=rank,
                    item_id=candidate.item_id,
                    title=candidate.title,
                    logprob=candidate.logprob,
                    probability=candidate.probability,
                    score=candidate.score,
                )
                for rank, candidate in enumerate(kept, start=1)
            ),
            model=model.model if model else None,
            prompt=self.template.name if model and self.template else None,
            catalog=self.catalog.fingerprint,
            engine=model.name if model else "none",
            scoring="ground" if self.chat else self.scoring.name if engine else "prior",
            timings_s=draft.timings_s,
            usage=vars(draft.usage) if engine else {},
            exact=isinstance(ranking, Ranking) and ranking.is_exact,
            notes=tuple(draft.notes),
            needs_review=self.template is not None and self.template.review,
        )

    def _explain(self, drafts: Sequence[_Draft], answers: Sequence[Recommendation]) -> list[Recommendation]:
        """Stage 5, where it was asked for: what speaks for the items, of all people at once."""
        started_s = time.perf_counter()
        left_out = [self._leave_out(draft, answer) for draft, answer in zip(drafts, answers, strict=True)]
        together = [one for some in left_out for one in some]
        if not together:
            found = []
        elif self.engine is None or drafts[0].by_prior:
            found = [self._log_mass(without)[without.shortlist] for _, without in together]
        else:
            found = self.engine.run(self._weighing_job(*one) for one in together)
        weights, share_s = iter(found), (time.perf_counter() - started_s) / max(1, len(together))
        return [
            explained(answer, [v for v, _ in some], [next(weights) for _ in some], len(some) * share_s)
            if draft.query.explain
            else answer
            for draft, answer, some in zip(drafts, answers, left_out, strict=True)
        ]

    def _leave_out(self, draft: _Draft, answer: Recommendation) -> list[tuple[Variant, _Draft]]:
        """The questions that explain an answer, whose list is their shortlist; none where nobody asked."""
        if not draft.query.explain or not answer.items:
            return []
        rows = np.array([self.catalog.row[item.item_id] for item in answer.items], np.int64)
        engine = None if draft.by_prior else self.engine
        found = variants(
            draft.history.told_as_of(draft.prompt.told_at) if draft.prompt else draft.history,
            draft.now,
            [item.item_id for item in answer.items],
            catalog=self.catalog,
            said=draft.prompt.said if draft.prompt else {},
            scoring=self.scoring if engine else None,
            context_only=draft.query.explain == "context",
        )
        return [
            (
                variant,
                replace(
                    draft,
                    history=variant.history,
                    now=variant.now,
                    shortlist=rows,
                    prompt=self._prompt(variant.history, variant.now, variant.instead) if engine else None,
                ),
            )
            for variant in found
        ]

    def _weighing_job(self, variant: Variant, draft: _Draft) -> Job[np.ndarray]:
        return _ids(draft), self._weighing(draft, variant.scoring or self.scoring), draft.usage

    def _candidate(self, row: int, logprob: float, is_distribution: bool) -> Candidate:
        item = self.catalog.items[row]
        return Candidate(
            item_id=item.item_id,
            title=item.title,
            category=item.category,
            description=self.catalog.description(row),
            logprob=logprob,
            probability=float(np.exp(logprob)) if is_distribution else None,
            score=logprob,
        )


def _best(weights: np.ndarray, k: int) -> np.ndarray:
    """The rows of the k largest weights, best first, equal ones by row; impossible ones are left out. Int64."""
    least = -np.inf
    if len(weights) > _STRETCH * k:  # at least k weights reach the k-th best of the bests of stretches
        bests = np.maximum.reduceat(weights, np.arange(0, len(weights), _STRETCH))
        least = np.sort(bests)[-k]
    above = np.flatnonzero(weights > least)
    above = above[np.argsort(-weights[above], kind="stable")]
    if least == -np.inf or len(above) >= k:
        return above[:k]
    return np.concatenate([above, np.flatnonzero(weights == least)[: k - len(above)]])


def _nothing_left(query: Query, n_items: int, n_had: int, n_refused: int) -> str:
    """Why no item can be recommended."""
    if query.conditions:
        own = [*["does not have yet"] * query.exclude_seen, *["did not refuse"] * (n_refused > 0)]
        beside = f" that {query.user_id} {' and '.join(own)}" if own else ""
        return f"No item is left for {query.user_id}: none is on offer {query.conditions}{beside}."
    if n_had >= n_items:
        return f"No item is left for {query.user_id}, who already has all {n_items} of the catalogue."
    counts = {"theirs already": n_had, "refused": n_refused, "retired": n_items - n_had - n_refused}
    why = " or ".join(what for what, n in counts.items() if n > 0)
    return f"No item is left for {query.user_id}: all {n_items} of the catalogue are {why}."


def instant(at: datetime | str | None, zone: ZoneInfo) -> tuple[datetime, bool]:
    """The moment asked about on the person's clock, and whether it named a zone itself."""
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at.strip())
        except ValueError:
            raise ConfigError(
                f"cannot read the time {at!r}", hint="Write it like 2017-11-22T18:00 or 2017-11-22T18:00-05:00."
            ) from None
    if at is None:
        at = datetime.now(UTC)
    if not MINYEAR < at.year < MAXYEAR:  # so that it and the days beside it can be said on any clock
        raise ConfigError(f"the time {at.isoformat()} lies outside the years 2 to 9998")
    return (at.astimezone(zone), True) if at.tzinfo else (at.replace(tzinfo=zone), False)


def _shifted(at: datetime) -> str:
    """Whether the clock showed that time twice, or never; of two the first is meant."""
    early, late = (at.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    return "" if early == late else "came twice" if early > late else "was skipped"


def _ids(draft: _Draft) -> Sequence[int]:
    assert draft.prompt is not None
    return draft.prompt.token_ids


def _ignore(user_id: str, stage: Stage, value: Any) -> None:
    """The trace that shows nothing."""
