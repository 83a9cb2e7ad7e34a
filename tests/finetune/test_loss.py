"""The loss is the negative log-probability that the search would give, and packing changes nothing about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score
from genrec.engines.transformers import TransformersEngine
from genrec.finetune.loss import (
    alternatives,
    binary_losses,
    choice_losses,
    full_vocabulary,
    logits_of,
    taught_losses,
    trie_loss,
)
from genrec.finetune.methods import hidden_before, load_model, output_embeddings
from genrec.finetune.packing import Chooser, Writing, pack
from tests.support.people import ITEMS, person


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return TransformersEngine(tiny_model, model="tiny", dtype="float32")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> torch.nn.Module:
    return load_model(tiny_model, dtype="float32").eval()


@pytest.mark.parametrize("gamma", [None, 0.7])
def test_a_packed_target_costs_what_the_search_says(
    writing: Writing, engine: TransformersEngine, model: torch.nn.Module, gamma: float | None
) -> None:
    rows = [row for i in range(6) for row in writing.rows(person(f"p{i}", 2 + 3 * i, first=i))]
    packed, trie = pack(rows), writing.encoded.trie
    choices = Chooser(trie).to(packed.target)
    rng = np.random.default_rng(1)
    masses = [rng.dirichlet(np.full(len(ITEMS), 0.5)) for _ in packed.target]
    among = alternatives(trie, choices, masses if gamma else None)
    with torch.inference_mode():
        hidden = hidden_before(model, packed, torch.from_numpy(packed.at(choices)))
        output = output_embeddings(model).weight
        weights = {"gamma": gamma, "beta": 0.9} if gamma else {}
        losses = trie_loss(hidden, output, among, **weights)  # type: ignore[arg-type]
        found = torch.zeros(len(packed.target)).index_add(0, torch.from_numpy(choices.target), losses)
    scoring = Scoring(name="fused", **weights) if gamma else Scoring(name="masked")  # type: ignore[arg-type]
    n = 0
    for row in rows:
        for position, target in zip(row.position, row.target, strict=True):
            log_mass = np.log(masses[n]) if gamma else None
            search = score(trie, range(len(ITEMS)), scoring=scoring, log_mass=log_mass)
            [expected] = engine.run([(row.token_ids[: position + 1].tolist(), search)])
            assert found[n].item() == pytest.approx(-expected[target], abs=2e-4)
            n += 1
    assert n == len(packed.target) > 40


def test_rows_do_not_see_each_other(writing: Writing, model: torch.nn.Module) -> None:
    rows = [row for i in range(4) for row in writing.rows(person(f"p{i}", 2 + 9 * i, first=i))]
    together = pack(rows)
    with torch.inference_mode():
        every = torch.arange(len(together.token_ids))
        packed = hidden_before(model, together, every)
        at = together.lengths[0]
        for row, length in zip(rows, together.lengths[1:], strict=True):
            alone = hidden_before(model, pack([row]), torch.arange(len(row.token_ids)))
            torch.testing.assert_close(packed[at : at + length], alone[together.lengths[0] :], atol=1e-4, rtol=1e-3)
            at += length


def test_losses_are_those_of_a_softmax_over_the_children(writing: Writing) -> None:
    trie = writing.encoded.trie
    choices = Chooser(trie).to(range(len(ITEMS)))
    among = alternatives(trie, choices)
    torch.manual_seed(0)
    hidden, output = torch.randn(len(choices), 16), torch.randn(600, 16, requires_grad=True)
    losses = choice_losses(logits_of(hidden, output, among), among)
    for i in range(len(choices)):
        tokens = torch.from_numpy(trie.tokens(trie.children(int(choices.node[i]))).astype(np.int64))
        expected = torch.nn.functional.cross_entropy(output[tokens] @ hidden[i], torch.tensor(choices.chosen[i]))
        torch.testing.assert_close(losses[i], expected)
    losses.sum().backward()
    touched = output.grad.abs().sum(1).nonzero()[:, 0]
    assert set(touched.tolist()) == set(among.tokens.tolist()), "no other row of the output matrix is moved"


def test_yes_or_no_is_asked_of_every_child(writing: Writing) -> None:
    trie = writing.encoded.trie
    choices = Chooser(trie).to([0, 3, 8])
    among = alternatives(trie, choices)
    logits = torch.randn(len(among.choice), generator=torch.Generator().manual_seed(0))
    losses = binary_losses(logits, among)
    for n in range(len(choices)):
        of_it = among.choice == n
        p = logits[of_it].softmax(0)
        said = torch.zeros(len(p))
        said[int(choices.chosen[n])] = 1
        assert losses[n].item() == pytest.approx(
            torch.nn.functional.binary_cross_entropy(p, said, reduction="sum").item(), abs=1e-5
        )


def test_the_prior_teaches_what_it_says_of_every_child(writing: Writing) -> None:
    trie = writing.encoded.trie
    choices = Chooser(trie).to([0, 3, 8])
    rng = np.random.default_rng(2)
    among = alternatives(trie, choices, [rng.dirichlet(np.full(len(ITEMS), 0.5)) for _ in range(3)])
    assert among.log_mass is not None
    logits = torch.randn(len(among.choice), generator=torch.Generator().manual_seed(0), requires_grad=True)
    losses = taught_losses(logits, among)
    for n in range(len(choices)):
        of_it = among.choice == n
        said = among.log_mass[of_it].softmax(0)
        torch.testing.assert_close(losses[n], torch.nn.functional.cross_entropy(logits[of_it], said))
    hidden, output = torch.randn(len(choices), 16), torch.randn(600, 16)
    chosen, taught, half = (trie_loss(hidden, output, among, taught=share) for share in (0.0, 1.0, 0.5))
    torch.testing.assert_close(half, (chosen + taught) / 2)
    assert not torch.allclose(chosen, taught)


def test_the_loss_over_the_whole_vocabulary_is_the_usual_one() -> None:
    torch.manual_seed(0)
    hidden, output, tokens = torch.randn(600, 8), torch.randn(50, 8), torch.randint(50, (600,))
    expected = torch.nn.functional.cross_entropy(hidden @ output.T, tokens, reduction="none")
    torch.testing.assert_close(full_vocabulary(hidden, output, tokens), expected)
