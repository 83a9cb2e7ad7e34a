"""Other ways to get items out of a language model, on the same model, people and prompts.

Written from the libraries' plain interfaces, on purpose without the project's tree or search. The truth is the exact
search on transformers, for each way the one of the distribution that it approximates.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from genrec.bench.ours import measure
from genrec.bench.people import SCORINGS, Plan, fit_window, opened, prompt_ids, with_scoring
from genrec.bench.report import Book, Row
from genrec.catalog import SEPARATOR, EncodedCatalog
from genrec.engines.quiet import quiet_start
from genrec.engines.transformers import TransformersEngine
from genrec.models import model_folder
from genrec.recommendation import Query
from genrec.recommender import Recommender

SAMPLES = (10, 100)
"""How many samples are drawn from the catalogue as a grammar."""


def peers(plan: Plan, book: Book) -> None:
    """Ours, constrained `generate`, vLLM's beam search, vLLM's structured outputs."""
    generate, beams = f"transformers, generate with {plan.k} beams", f"vllm, beam_search of width {plan.k}"
    choices = {n: f"vllm, one of all titles, {n} samples" for n in SAMPLES}
    on = {name: [f"{name}, ours, {scoring}" for scoring in SCORINGS] for name in plan.engines}
    with opened(plan) as (workspace, everybody):
        asked = everybody[: plan.n_slow]
        engine = workspace.engine("transformers")
        assert isinstance(engine, TransformersEngine)
        truth: dict[str, list[list[str]]] = {}
        with closing(engine):
            recommenders = {scoring: with_scoring(workspace, engine.name, scoring) for scoring in SCORINGS}
            window = fit_window(recommenders["fused"], everybody, plan.n_tokens)
            for scoring, recommender in recommenders.items():
                recommender.max_tokens = window
                truth[scoring] = _lists(recommender, asked)
                if engine.name in plan.engines:
                    book.add(f"{engine.name}, ours, {scoring}", partial(_ours, recommender, asked, truth[scoring], 1))
            prompts, encoded = prompt_ids(recommenders["joint"], asked), recommenders["joint"].encoded
            if engine.name in plan.engines:
                book.add(generate, lambda: _generate(engine, encoded, prompts, truth["joint"], plan.k))
        if "vllm" in plan.engines and book.lacks(*on["vllm"]):
            with book.attempt("vllm, ours"):
                started = workspace.engine("vllm")
                assert started is not None
                with closing(started):
                    for scoring in SCORINGS:
                        recommender = with_scoring(workspace, "vllm", scoring)
                        recommender.max_tokens = window
                        n_repeats = min(plan.n_repeats, 3)
                        book.add(
                            f"vllm, ours, {scoring}", partial(_ours, recommender, asked, truth[scoring], n_repeats)
                        )
        if "vllm" in plan.engines and book.lacks(beams, *choices.values()):
            with book.attempt("vllm, LLM"):
                llm = _offline(workspace.settings.model, workspace.settings.dtype)
                try:
                    peer = _Offline(llm, encoded, prompts, plan.k)
                    book.add(beams, lambda: peer.beam_search(truth["joint"]))
                    for n, name in choices.items():
                        book.add(name, partial(peer.choice, truth["masked"], n))
                finally:
                    llm.llm_engine.engine_core.shutdown()


def _lists(recommender: Recommender, asked: Sequence[Query]) -> list[list[str]]:
    assert recommender.engine is not None
    recommender.engine.forget()  # in bfloat16, what is read together decides the last digits
    return [[item.item_id for item in answer.items] for answer in recommender.recommend_many(asked)]


def _ours(recommender: Recommender, asked: Sequence[Query], truth: Sequence[Sequence[str]], n_repeats: int) -> Row:
    row = measure(recommender, asked, n_repeats=n_repeats)
    found = _lists(recommender, asked)
    return {**row, "approximates": f"{recommender.scoring.name}, exactly", "illegal": 0.0, **_found(found, truth)}


def _found(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> Row:
    """How much of each true list was found, and how many different legal items there were."""
    shares = [len(set(some) & set(true)) / len(true) for some, true in zip(found, truth, strict=True)]
    return {
        "recall": statistics.fmean(shares),
        "n_distinct": statistics.fmean(len(set(some)) for some in found),
    }


def _generate(
    engine: TransformersEngine,
    encoded: EncodedCatalog,
    prompts: Sequence[Sequence[int]],
    truth: Sequence[Sequence[str]],
    k: int,
) -> Row:
    """The usual way: transformers' `generate` with k beams and a prefix function, without length penalty."""
    torch, lm = engine.torch, engine.lm
    allowed: dict[tuple[int, ...], set[int]] = {}
    row_of: dict[tuple[int, ...], int] = {}
    end = encoded.ids(0)[-1]  # the separator closes every item, so a beam ends with it
    for row in range(len(encoded.catalog)):
        ids = encoded.ids(row)
        row_of[tuple(ids)] = row
        for depth, token in enumerate(ids):
            allowed.setdefault(tuple(ids[:depth]), set()).add(token)
    lists = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}
    longest = max(len(ids) for ids in row_of)
    times_s: list[float] = []
    found: list[list[str]] = []
    n_computed = n_illegal = 0

    def count(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal n_computed
        n_computed += kwargs["input_ids"].numel()

    hook = lm.register_forward_pre_hook(count, with_kwargs=True)
    try:
        for prompt in prompts:
            n_prompt = len(prompt)

            def after(batch: int, ids: Any, n_prompt: int = n_prompt) -> list[int]:
                return lists.get(tuple(ids[n_prompt:].tolist()), [end])  # asked about beams that have ended, too

            ids = torch.tensor([list(prompt)], device=lm.device)
            started_s = time.perf_counter()
            with torch.inference_mode():
                out = lm.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    num_beams=k,
                    num_return_sequences=k,
                    max_new_tokens=longest,
                    do_sample=False,
                    length_penalty=0.0,
                    eos_token_id=end,
                    pad_token_id=end,
                    prefix_allowed_tokens_fn=after,
                )
            times_s.append(time.perf_counter() - started_s)
            beams = [tuple(beam[: beam.index(end) + 1]) if end in beam else () for beam in out[:, n_prompt:].tolist()]
            rows = [row_of[beam] for beam in beams if beam in row_of]
            n_illegal += k - len(rows)
            found.append([encoded.catalog.items[row].item_id for row in rows])
    finally:
        hook.remove()
    return {
        "engine": "transformers",
        "approximates": "joint",
        "n_people": len(prompts),
        "n_at_once": 1,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "whole_s": statistics.median(times_s),
        "computed_tokens": n_computed / len(prompts),
        "illegal": n_illegal / (k * len(prompts)),
        **_found(found, truth),
    }


def _offline(model: str, dtype: str) -> Any:
    """The class of vLLM for batches, with the engine arguments of ours; it needs its tokenizer, we want its counts."""
    from genrec.engines.vllm import VllmEngine

    arguments = VllmEngine.arguments(model_folder(model), dtype=dtype)
    with warnings.catch_warnings(), quiet_start():
        warnings.simplefilter("ignore")
        from vllm import LLM

        return LLM(**arguments | {"skip_tokenizer_init": False, "disable_log_stats": False})


class _Offline:
    """What vLLM's `LLM` offers, all people at once."""

    def __init__(self, llm: Any, encoded: EncodedCatalog, prompts: Sequence[Sequence[int]], k: int) -> None:
        self.llm, self.prompts, self.k = llm, prompts, k
        self.tokenizer = llm.get_tokenizer()
        self.item_id = {
            text: item.item_id for text, item in zip(encoded.catalog.texts, encoded.catalog.items, strict=True)
        }
        self.longest = max(len(encoded.ids(row)) for row in range(len(encoded.catalog)))

    def beam_search(self, truth: Sequence[Sequence[str]]) -> Row:
        """Unconstrained: it has no way to keep to a catalogue that works with `choice` or without loss."""
        from vllm.sampling_params import BeamSearchParams

        params = BeamSearchParams(
            beam_width=self.k, max_tokens=self.longest, temperature=0.0, length_penalty=0.0, ignore_eos=True
        )

        def run() -> list[list[str]]:
            outputs = self.llm.beam_search([{"prompt_token_ids": [*prompt]} for prompt in self.prompts], params)
            return [
                [self.tokenizer.decode(beam.tokens[len(prompt) :]) for beam in output.sequences]
                for prompt, output in zip(self.prompts, outputs, strict=True)
            ]

        return self._row(run, truth, "joint, over all texts")

    def choice(self, truth: Sequence[Sequence[str]], n: int) -> Row:
        """Structured outputs: each sample is one of all titles, drawn step by step from what the grammar allows."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        titles = [f" {text}{SEPARATOR}" for text in self.item_id]
        params = SamplingParams(
            n=n,
            temperature=1.0,  # by the engine's seed: on CPUs vLLM 0.32 ends at a request's own, where a prompt is split
            max_tokens=max(map(len, titles)),  # a title may be spelled in other tokens than its usual ones
            structured_outputs=StructuredOutputsParams(choice=titles),
        )

        def run() -> list[list[str]]:
            outputs = self.llm.generate(
                [{"prompt_token_ids": [*prompt]} for prompt in self.prompts], params, use_tqdm=False
            )
            return [[sample.text for sample in output.outputs] for output in outputs]

        return self._row(run, truth, "masked, by sampling")

    def _row(self, run: Callable[[], list[list[str]]], truth: Sequence[Sequence[str]], approximates: str) -> Row:
        def timed() -> tuple[float, list[list[str]]]:
            self.llm.reset_prefix_cache()
            started_s = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                texts = run()
            return (time.perf_counter() - started_s) / len(self.prompts), texts

        first_s, _ = timed()
        before = self._computed()
        whole_s, texts = timed()
        made = [[text.split(SEPARATOR)[0].strip() for text in some] for some in texts]
        found = [[self.item_id[text] for text in some if text in self.item_id] for some in made]
        n_made = sum(map(len, made))
        return {
            "engine": "vllm",
            "approximates": approximates,
            "n_people": len(self.prompts),
            "n_at_once": len(self.prompts),
            "prompt_tokens": statistics.median(map(len, self.prompts)),
            "whole_s": whole_s,
            "first_s": first_s,
            "computed_tokens": (self._computed() - before) / len(self.prompts),
            "illegal": 1 - sum(map(len, found)) / n_made,
            **_found(found, truth),
        }

    def _computed(self) -> float:
        """Positions that vLLM ran through the model so far: what its cache did not have, and what it wrote itself."""
        counts: dict[str, float] = {}
        for metric in self.llm.get_metrics():
            if hasattr(metric, "value"):
                counts[metric.name] = counts.get(metric.name, 0.0) + metric.value
        missed = counts.get("vllm:prefix_cache_queries", 0.0) - counts.get("vllm:prefix_cache_hits", 0.0)
        # The last token of a request is written, but never read.
        return missed + counts.get("vllm:generation_tokens", 0.0) - counts.get("vllm:request_success", 0.0)
