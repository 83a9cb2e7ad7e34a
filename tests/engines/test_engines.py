"""All engines against the model itself, read plainly: the same log-probabilities for any tree."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from genrec.catalog import Catalog
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score, search
from genrec.engines.base import Engine, Search, TokenTree, Usage
from genrec.engines.transformers import TransformersEngine
from genrec.errors import EngineError, ModelError
from genrec.events import Item
from tests.support.stock_server import StockServer

WORDS = "milk bread butter eggs cheese yoghurt coffee tea sugar flour beer wine salad buns potatoes gravy candy".split()


@pytest.fixture(scope="module")
def reference(opinionated_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(opinionated_model, model="tiny", dtype="float32")
    yield engine
    engine.close()


VLLM = [pytest.param(name, marks=pytest.mark.vllm) for name in ("vllm", "vllm-server")]


@pytest.fixture(scope="module", params=["transformers", *VLLM])
def engine(request: pytest.FixtureRequest, reference: TransformersEngine, opinionated_model: Path) -> Iterator[Engine]:
    if request.param == "transformers":
        yield reference
        return
    pytest.importorskip("vllm", reason="vLLM is not installed")
    engine: Engine
    if request.param == "vllm":
        from genrec.engines.vllm import VllmEngine

        options = {"kv_cache_memory_bytes": 64 << 20}
        engine = VllmEngine(opinionated_model, model="tiny", dtype="float32", options=options)
    else:
        from genrec.engines.vllm_server import VllmServerEngine

        server: StockServer = request.getfixturevalue("stock_server")
        engine = VllmServerEngine(opinionated_model, model="tiny", **server.options)
    yield engine
    engine.close()


def plainly(reference: TransformersEngine, ids: Sequence[int]) -> np.ndarray:
    """Log-probabilities after each position, from one ordinary forward pass. Shape ``(T, n_vocab)``."""
    torch = reference.torch
    with torch.inference_mode():
        logits = reference.lm(input_ids=torch.tensor([list(ids)], device=reference.lm.device)).logits[0]
        logprobs: np.ndarray = logits.log_softmax(-1).cpu().numpy()
    return logprobs


def ask(tree: TokenTree) -> Search[np.ndarray]:
    return (yield tree)


def random_tree(rng: np.random.Generator, n_nodes: int, n_vocab: int) -> TokenTree:
    parent = np.array([int(rng.integers(-1, i)) for i in range(n_nodes)], np.int32)
    token = np.zeros(n_nodes, np.int32)
    for p in set(parent.tolist()):
        siblings = np.flatnonzero(parent == p)
        token[siblings] = rng.choice(np.arange(3, n_vocab), len(siblings), replace=False)
    return TokenTree(parent=parent, token=token, wanted=rng.random(n_nodes) < 0.7)


def check_trees(engine: Engine, reference: TransformersEngine) -> None:
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, 500, n).tolist() for n in (1, 2, 31, 32, 33, 64, 65, 150)]
    trees = [random_tree(rng, n, 500) for n in (1, 3, 8, 13, 21, 30, 9, 25)]
    values = engine.run([(prompt, ask(tree)) for prompt, tree in zip(prompts, trees, strict=True)])
    for prompt, tree, value in zip(prompts, trees, values, strict=True):
        assert value.shape == (len(tree),)
        paths: list[list[int]] = []
        for parent, token in zip(tree.parent.tolist(), tree.token.tolist(), strict=True):
            paths.append([*(paths[parent] if parent >= 0 else []), token])
        for node in np.flatnonzero(tree.wanted):
            truth = plainly(reference, [*prompt, *paths[node][:-1]])[-1, paths[node][-1]]
            assert value[node] == pytest.approx(truth, abs=1e-4)


def test_any_tree_gets_the_models_own_log_probabilities(engine: Engine, reference: TransformersEngine) -> None:
    check_trees(engine, reference)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("Falcon", {"num_kv_heads": 2, "new_decoder_architecture": True}),  # cannot change its attention
        ("Doge", {"intermediate_size": 64}),  # makes a mask of its own
    ],
)
def test_a_model_with_ways_of_its_own_is_read_as_it_reads(
    architecture: str, options: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    size = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = getattr(transformers, f"{architecture}Config")(**size, **options)
    torch.manual_seed(1)
    getattr(transformers, f"{architecture}ForCausalLM")(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path)
    engine = TransformersEngine(tmp_path, model=architecture, dtype="float32")
    check_trees(engine, engine)
    engine.close()


def test_a_node_wider_than_one_request_takes(engine: Engine, reference: TransformersEngine) -> None:
    prompt, tokens = [5, 6, 7], np.arange(10, 410, dtype=np.int32)
    tree = TokenTree(parent=np.full(400, -1, np.int32), token=tokens, wanted=np.ones(400, bool))
    [value] = engine.run([(prompt, ask(tree))])
    np.testing.assert_allclose(value, plainly(reference, prompt)[-1, tokens], atol=1e-4)


def test_vllm_reads_a_prompt_that_ends_with_a_block_once_however_wide_its_end_is(engine: Engine) -> None:
    if engine.name != "vllm" or engine.prompt_tail:
        pytest.skip("not vLLM in this process, or on a model runner that takes few names")
    root, below = np.arange(400), np.repeat(np.arange(5), 3)  # five children have three of their own
    tree = TokenTree(
        parent=np.concatenate([np.full(400, -1), below]).astype(np.int32),
        token=np.concatenate([10 + root, np.tile([5, 6, 7], 5)]).astype(np.int32),
        wanted=np.ones(415, bool),
    )
    engine.forget()
    own = Usage()
    engine.run([([9] * 64, ask(tree), own)])
    assert own.n_requests == 1 + 5
    assert own.n_computed_tokens == 64 + 5


@pytest.mark.parametrize("name", ["joint", "masked", "fused"])
def test_search_over_a_catalogue_equals_scoring_all_of_it(
    engine: Engine, reference: TransformersEngine, name: str
) -> None:
    titles = [f"{a} {b}" for a in WORDS for b in WORDS]
    encoded = Catalog.of([Item(item_id=t, title=t) for t in titles]).encode(engine.tokenizer)
    rng = np.random.default_rng(2)
    log_mass = np.log(rng.dirichlet(np.full(len(titles), 0.3)) + 1e-12)
    options = {"scoring": Scoring(name=name), "log_mass": log_mass if name == "fused" else None}  # type: ignore[arg-type]
    prompts = [rng.integers(3, 500, n).tolist() for n in (20, 33, 70, 100)]
    everything = reference.run([(p, score(encoded.trie, range(len(titles)), **options)) for p in prompts])  # type: ignore[arg-type]
    rankings = engine.run([(p, search(encoded.trie, k=10, **options)) for p in prompts])  # type: ignore[arg-type]
    for weights, ranking in zip(everything, rankings, strict=True):
        best = np.sort(weights)[::-1][:10]
        np.testing.assert_allclose(ranking.logprobs, best, atol=1e-3)
        np.testing.assert_allclose(weights[ranking.rows], best, atol=1e-3)


def test_a_prompt_that_does_not_fit_is_refused(engine: Engine) -> None:
    tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))
    for prompt in ([], [5] * engine.max_tokens):
        with pytest.raises(EngineError, match=f"a prompt of {len(prompt)} tokens does not fit"):
            engine.run([(prompt, ask(tree))])
    [value] = engine.run([([5] * 40, ask(tree))])  # and the engine goes on
    assert np.isfinite(value).all()


def test_a_failing_search_ends_the_run_not_the_engine(engine: Engine) -> None:
    tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))

    def failing() -> Search[None]:
        yield tree
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        engine.run([([5] * 20, failing()), ([6] * 20, failing())])
    assert np.isfinite(engine.run([([5] * 40, ask(tree))])[0]).all()


def test_an_interrupt_ends_the_searches_and_leaves_the_engine_usable(engine: Engine) -> None:
    tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))
    ended: list[int] = []

    def endless(n: int) -> Search[None]:
        try:
            yield tree
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            while True:
                yield tree
        finally:
            ended.append(n)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.run(([5] * 20, endless(n)) for n in range(1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert np.isfinite(engine.run([([5] * 40, ask(tree))])[0]).all()
    gc.collect()
    assert ended == [0]


def test_usage_counts_what_was_computed(engine: Engine) -> None:
    engine.forget()
    before = dict(vars(engine.usage))
    engine.prefill([[7] * 100])
    assert engine.usage.n_computed_tokens - before["n_computed_tokens"] == 100
    assert engine.usage.n_prompt_tokens - before["n_prompt_tokens"] == 100


def test_every_position_was_either_there_or_computed(engine: Engine) -> None:
    titles = [f"{a} {b}" for a in WORDS for b in WORDS]
    encoded = Catalog.of([Item(item_id=t, title=t) for t in titles]).encode(engine.tokenizer)
    before = dict(vars(engine.usage))
    own = Usage()
    engine.run([([9] * 65, search(encoded.trie, k=5, scoring=Scoring(name="masked")), own)])
    counted = {name: n - before[name] for name, n in vars(engine.usage).items()}
    assert vars(own) == counted
    prompt, cached, computed, requests = (
        counted[name] for name in ("n_prompt_tokens", "n_cached_tokens", "n_computed_tokens", "n_requests")
    )
    assert prompt == cached + computed
    assert requests > 1
    assert 65 <= computed < prompt


def test_a_history_that_has_grown_is_read_on_from_where_it_ended(engine: Engine, reference: TransformersEngine) -> None:
    rng = np.random.default_rng(4)
    history, event, now = (rng.integers(3, 500, n).tolist() for n in (640, 20, 9))
    tree = random_tree(rng, 12, 500)
    engine.forget()
    engine.run([([*history, *now], ask(tree))])
    before = engine.usage.n_computed_tokens
    [value] = engine.run([([*history, *event, *now], ask(tree))])
    if engine.name != "vllm-server":  # which does not tell enough
        assert engine.usage.n_computed_tokens - before < 300  # each request of vLLM reads what its last block lacks
    engine.forget()
    [cold] = engine.run([([*history, *event, *now], ask(tree))])
    np.testing.assert_allclose(value[tree.wanted], cold[tree.wanted], atol=1e-4)


def test_searches_driven_on_an_event_loop_do_not_mix(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, 500, n).tolist() for n in (20, 33, 70)]
    tree = random_tree(rng, 12, 500)

    async def together() -> list[np.ndarray]:
        return await asyncio.gather(*(engine.drive(prompt, ask(tree)) for prompt in prompts))

    alone = engine.run([(prompt, ask(tree)) for prompt in prompts])
    engine.forget()
    for one, other in zip(asyncio.run(together()), alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    engine.close()


def test_a_search_nobody_waits_for_ends_before_its_next_round(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))
    begun, ended = threading.Event(), threading.Event()

    def endless() -> Search[None]:
        try:
            while True:
                yield tree
                begun.set()
        finally:
            ended.set()

    async def give_up() -> None:
        task = asyncio.ensure_future(engine.drive([5] * 20, endless()))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 60)
        assert np.isfinite(await engine.drive([5] * 40, ask(tree))).all()

    asyncio.run(give_up())
    engine.close()


def test_the_cache_of_keys_and_values_stays_within_its_bound(tiny_model: Path) -> None:
    # two layers, one head of 32 numbers of 4 bytes, keys and values: 512 bytes a token
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32", cache_gib=250 * 512 / 2**30)
    tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))

    def computed(prompt: list[int]) -> int:
        before = engine.usage.n_computed_tokens
        engine.run([(prompt, ask(tree))])
        return engine.usage.n_computed_tokens - before

    ann, bob, cat = ([n] * 100 for n in (7, 8, 9))
    assert [computed(prompt) for prompt in (ann, bob, ann, cat, ann, bob)] == [100, 100, 1, 100, 1, 100]
    assert computed([6] * 300) == 300  # too long to be kept, and nobody has to go for it
    assert computed(bob) == 1
    engine.close()


def test_a_beginning_that_many_share_is_read_once(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    instructions = [7] * 50
    engine.prefill([[*instructions, *[8] * 200]])
    before = engine.usage.n_computed_tokens
    engine.prefill([[*instructions, *[9] * 200]])
    engine.prefill([[*instructions, *[8] * 201]])
    assert engine.usage.n_computed_tokens - before == 200 + 1
    engine.close()


def test_a_closed_engine_says_so(opinionated_model: Path) -> None:
    engine = TransformersEngine(opinionated_model, model="tiny")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.prefill([[5, 6, 7]])


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_model_is_refused(tiny_model: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(tiny_model, tmp_path / "damaged")
    path = tmp_path / "damaged" / file
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="transformers can"):
        TransformersEngine(tmp_path / "damaged", model="damaged")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no tokenizer"):
        TransformersEngine(tmp_path, model="nothing")


def test_an_engine_that_dies_is_an_error_and_can_still_be_closed(engine: Engine) -> None:
    """Must stay the last one: it takes vLLM's process away."""
    if engine.name != "vllm":
        pytest.skip("not a process of ours")
    [process] = multiprocessing.active_children()
    tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))

    def dying() -> Search[None]:
        yield tree
        process.kill()
        process.join()
        yield tree

    with pytest.raises(EngineError, match="vLLM failed") as caught:
        engine.run([([5] * 20, dying()), ([6] * 20, ask(tree))] * 20)
    assert "VLLM_LOGGING_LEVEL" in (caught.value.hint or "")
    with pytest.raises(EngineError, match="vLLM failed"):
        engine.prefill([[5] * 20])
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.prefill([[5] * 20])
