"""The loop learns, stops where it should, and goes on after kill -9 as if nothing had been."""

from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer

from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score
from genrec.engines.transformers import TransformersEngine
from genrec.errors import ConfigError, ModelError, TrainingError
from genrec.finetune.adapter import NEVER_MERGED
from genrec.finetune.merging import merge, write_adapter, write_whole
from genrec.finetune.methods import METHODS, adapt, load_adapted, load_model
from genrec.finetune.options import Options
from genrec.finetune.packing import Chooser, Writing
from genrec.finetune.steps import Steps, batch, held_out_losses, target_losses
from genrec.finetune.train import Result, train
from genrec.finetune.weighing import choice_logits, fit_weights
from genrec.history import History
from tests.support.people import ITEMS, learners, person

QUICK = Options(rank=4, epochs=2, step_tokens=400, learning_rate=1e-2, save_every=3)
PEOPLE = learners()


def test_what_was_learned_holds_for_people_not_seen(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    strangers = [(p, row) for p in (person(f"new{i}", 6, first=3 * i) for i in range(5)) for row in writing.rows(p)]
    held_out = [batch(strangers, Chooser(writing.encoded.trie), QUICK)]
    model = load_model(tiny_model, dtype="float32")
    before = held_out_losses(model, held_out, QUICK).mean()
    options = replace(QUICK, epochs=6, eval_every=10)
    result = train(model, PEOPLE, writing, options, tmp_path / "run", held_out=held_out, progress=False)
    after = held_out_losses(result.model, held_out, QUICK).mean()
    assert after < 0.65 * before
    assert result.n_steps == result.n_planned
    assert not result.interrupted
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    looks = [entry["eval_loss"] for entry in result.log if "eval_loss" in entry]
    assert losses[-1] < 0.6 * losses[0]
    assert looks[-1] == pytest.approx(after, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_is_saved_and_served(
    writing: Writing, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    options = replace(QUICK, method=method, epochs=3)  # type: ignore[arg-type]
    model = load_model(tiny_model, dtype="float32")
    result = train(model, PEOPLE, writing, options, tmp_path / "run", progress=False)
    losses = [entry["loss"] for entry in result.log]
    assert losses[-1] < losses[0] - 0.1

    [row] = writing.rows(person("new", 5, first=3))
    prompt = row.token_ids[: row.position[-1] + 1].tolist()
    step = batch([(person("new", 5, first=3), row)], Chooser(writing.encoded.trie), options)
    with torch.inference_mode():
        expected = -target_losses(result.model.eval(), step, options)[-1].item()
    folder, whole = tmp_path / "adapter", tmp_path / "whole"
    engines = []
    if method == "full":
        write_whole(result.model, tiny_model, whole)
    else:
        write_adapter(result.model, folder)
    if method in ("lora", "adalora"):
        merge(tiny_model, folder, whole)
    if method not in NEVER_MERGED:
        engines.append(TransformersEngine(whole, model="whole", dtype="float32"))
    if method in ("lora", *NEVER_MERGED):
        engines.append(TransformersEngine(tiny_model, model="beside", dtype="float32", adapter=folder))
    for engine in engines:
        for _ in range(2):  # the second time from what the engine keeps
            where = score(writing.encoded.trie, row.target[-1:], scoring=Scoring(name="masked"))
            [found] = engine.run([(prompt, where)])
            assert found[0] == pytest.approx(expected, abs=1e-3)


def test_no_type_but_float32_tells_positions_apart(tiny_model: Path, tmp_path: Path) -> None:
    write_adapter(adapt(load_model(tiny_model), "bottleneck", rank=4), tmp_path / "adapter")
    write_whole(load_model(tiny_model).half(), tiny_model, tmp_path / "half")
    served = TransformersEngine(tiny_model, model="beside", dtype="bfloat16", adapter=tmp_path / "adapter").lm
    for model in (served, load_model(tmp_path / "half")):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}


def test_a_prefix_is_seen_by_as_many_layers_as_there_are(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    options = replace(QUICK, method="prefix", last_layers=2)
    result = train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, progress=False)
    assert result.n_steps == result.n_planned


@pytest.mark.parametrize("method", ["lora", "bottleneck", "full"])
def test_only_the_last_layers_change_where_that_is_asked_for(
    writing: Writing, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    options = replace(QUICK, method=method, last_layers=1, max_steps=2)  # type: ignore[arg-type]
    result = train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, progress=False)
    learned = [name for name, parameter in result.model.named_parameters() if parameter.requires_grad]
    assert learned
    assert all(".layers.1." in name for name in learned)


def test_the_whole_vocabulary_can_be_learned_from_too(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    options = replace(QUICK, loss="full-vocabulary")
    result = train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, progress=False)
    losses = [entry["loss"] for entry in result.log]
    assert losses[0] > 5  # nats of several tokens each, out of 600
    assert losses[-1] < 0.7 * losses[0]
    [[person_, row], *_] = [(p, r) for p in PEOPLE[:1] for r in writing.rows(p)]
    step = batch([(person_, row)], Chooser(writing.encoded.trie), options)
    behind = [writing.encoded.ids(int(target)) for target in row.target]
    assert step.token.tolist() == [token for ids in behind for token in ids]
    assert step.packed.token_ids[step.index.numpy()].tolist()[0] == row.token_ids[row.position[0]]


def test_yes_or_no_teaches_what_is_chosen(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    held_out = [batch([(p, r) for p in PEOPLE[:3] for r in writing.rows(p)], Chooser(writing.encoded.trie), QUICK)]
    before = held_out_losses(load_model(tiny_model, dtype="float32"), held_out, QUICK).mean()
    options = replace(QUICK, loss="binary")
    result = train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, progress=False)
    after = held_out_losses(result.model, held_out, QUICK).mean()
    assert after < 0.9 * before, "in nats of the softmax, too"


def test_what_the_prior_teaches_is_learned_and_not_judged(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    liked = np.full(len(ITEMS), 0.01 / (len(ITEMS) - 1))
    liked[4] = 0.99
    options = replace(QUICK, taught=0.9)
    result = train(
        load_model(tiny_model, dtype="float32"),
        PEOPLE,
        writing,
        options,
        tmp_path,
        mass_of=lambda *_: liked,
        progress=False,
    )
    chooser = Chooser(writing.encoded.trie)
    [row] = [row for _, row in Steps(PEOPLE[:1], writing, QUICK).rows][:1]
    rows = [(PEOPLE[0], replace(row.last(), target=np.array([target]))) for target in range(len(ITEMS))]
    losses = held_out_losses(result.model, [batch([one], chooser, QUICK) for one in rows], options)
    assert losses.argmin() == 4
    assert losses == pytest.approx(held_out_losses(result.model, [batch([one], chooser, QUICK) for one in rows], QUICK))
    with pytest.raises(TrainingError, match="needs the prior"):
        train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path / "none", progress=False)
    with pytest.raises(ConfigError, match="cannot teach"):
        replace(QUICK, taught=1.0)


def test_the_texts_of_all_items_can_be_learned_first(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    steps = Steps(PEOPLE, writing, replace(QUICK, domain_epochs=1.5))
    plain = Steps(PEOPLE, writing, QUICK)
    assert len(steps) == len(steps.text_steps) + len(plain)
    first, last = steps[0], steps[len(steps) - 1]
    ids = first.packed.token_ids
    assert ids[first.index.numpy() + 1].tolist() == first.token.tolist()
    texts = [writing.tokenizer.decode(one.tolist()) for one in steps.texts]
    assert sorted(text.strip("; ") for text in texts) == sorted(ITEMS)
    assert last.packed.token_ids.tolist() == plain[len(plain) - 1].packed.token_ids.tolist()

    options = replace(QUICK, domain_epochs=30, max_steps=20)
    result = train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, progress=False)
    losses = [entry["loss"] for entry in result.log]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("method", ["lora", "bottleneck"])
def test_an_adapter_learns_on_from_where_it_was(
    writing: Writing, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    model, options = load_model(tiny_model, dtype="float32"), replace(QUICK, method=method)  # type: ignore[arg-type]
    first = train(model, PEOPLE, writing, options, tmp_path / "first", progress=False)
    write_adapter(first.model, tmp_path / "adapter")
    again = load_adapted(tiny_model, tmp_path / "adapter", method)
    step = Steps(PEOPLE, writing, QUICK)[0]
    before = target_losses(first.model.eval(), step, QUICK)
    assert torch.allclose(target_losses(again.eval(), step, QUICK), before, atol=1e-4)
    second = train(again, PEOPLE, writing, QUICK, tmp_path / "second", progress=False)
    assert target_losses(second.model.eval(), step, QUICK).mean() < before.mean() - 0.05
    with pytest.raises(ConfigError, match="cannot learn on"):
        load_adapted(tiny_model, tmp_path / "adapter", "adalora")
    with pytest.raises(ModelError, match="no adapter"):
        load_adapted(tiny_model, tmp_path, "lora")


def test_weights_of_targets_count(writing: Writing, tiny_model: Path) -> None:
    def weight(_: object, moment: int) -> float:
        return 0.5 if moment else 2.0

    steps = Steps(PEOPLE[:3], writing, QUICK, weight_of=weight)
    moments = [int(m) for i in steps.steps[0] for m in steps.rows[i][1].moment]
    assert steps[0].weight.tolist() == [0.5 if m else 2.0 for m in moments]


def test_a_prior_that_knows_is_heard_and_one_that_guesses_is_not(writing: Writing, tiny_model: Path) -> None:
    rng = np.random.default_rng(0)

    def knows(history: object, moment: int) -> np.ndarray:
        mass = np.full(len(ITEMS), 0.3 / (len(ITEMS) - 1))
        mass[[ITEMS.index(i) for i in history.moments[moment].item_ids]] = 0.7  # type: ignore[attr-defined]
        return mass

    def guesses(history: object, moment: int) -> np.ndarray:
        return rng.dirichlet(np.ones(len(ITEMS)))

    rows = [(p, row) for p in PEOPLE for row in writing.rows(p)]
    model = load_model(tiny_model, dtype="float32")
    chooser = Chooser(writing.encoded.trie)
    beta = {}
    for prior in (knows, guesses):
        steps = [batch(rows, chooser, QUICK, mass_of=prior)]
        _, beta[prior.__name__], loss = fit_weights(choice_logits(model, steps), steps)
        assert loss < np.log(len(ITEMS)) + 0.05
    assert beta["knows"] > 0.8
    assert 0 <= beta["guesses"] < 0.2
    [wrong] = choice_logits(model, [certain := batch(rows, chooser, QUICK, mass_of=knows)])
    wrong = wrong.index_add(0, certain.among.chosen, torch.full((len(certain.among.chosen),), -5.0))
    assert fit_weights([wrong], [certain])[:2] == (0, 1), "a model that speaks against what is chosen has no say"


def test_beside_a_prior_training_begins_where_the_prior_is(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    def knows(history: History, moment: int) -> np.ndarray:
        mass = np.full(len(ITEMS), 0.2 / (len(ITEMS) - 1))
        mass[[ITEMS.index(i) for i in history.moments[moment].item_ids]] = 0.8
        return mass

    options = replace(QUICK, gamma=0.1, beta=1.0)
    model = load_model(tiny_model, dtype="float32")
    result = train(model, PEOPLE, writing, options, tmp_path / "run", mass_of=knows, progress=False)
    losses = [entry["loss"] for entry in result.log]
    assert losses[0] < 0.5, "about -log 0.8"
    assert losses[-1] <= losses[0]
    with pytest.raises(TrainingError, match="needs the prior"):
        train(load_model(tiny_model), PEOPLE, writing, options, tmp_path / "without", progress=False)
    with pytest.raises(ConfigError, match="cannot weigh"):
        replace(options, loss="full-vocabulary")


def test_a_run_stops_by_itself_when_nothing_gets_better(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    held_out = [batch([(p, r) for p in PEOPLE[:3] for r in writing.rows(p)], Chooser(writing.encoded.trie), QUICK)]
    options = replace(QUICK, epochs=20, learning_rate=1e-9, eval_every=2, patience=2)
    result = train(
        load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, held_out=held_out, progress=False
    )
    assert result.n_steps < result.n_planned


def test_bad_options_and_empty_data_are_refused(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learning_rate is 0"):
        Options(learning_rate=0)
    with pytest.raises(ConfigError, match="patience"):
        Options(patience=3)
    with pytest.raises(ConfigError, match="last_layers 9"):
        train(load_model(tiny_model), PEOPLE, writing, replace(QUICK, last_layers=9), tmp_path)
    without = load_model(tiny_model)
    del without.base_model.layers[0].mlp
    with pytest.raises(ConfigError, match="no MLP"):
        train(without, PEOPLE, writing, replace(QUICK, method="bottleneck"), tmp_path)
    nobody = replace(PEOPLE[0], moments=())
    with pytest.raises(TrainingError, match="nothing to learn"):
        train(load_model(tiny_model), [nobody], writing, QUICK, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_says_where(
    writing: Writing, tiny_model: Path, tmp_path: Path
) -> None:
    options = replace(QUICK, method="full", learning_rate=1e30, optimizer="sgd", warmup=0.0, clip=1e30)
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is (nan|inf)"):
        train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, options, tmp_path, progress=False)


@pytest.mark.parametrize("last_layers", [None, 1])
def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(
    writing: Writing, tiny_model: Path, tmp_path: Path, last_layers: int | None
) -> None:
    options = replace(QUICK, last_layers=last_layers)

    def run(folder: str, minutes: float) -> tuple[torch.Tensor, list[float]]:
        model = load_model(tiny_model, dtype="float32")
        result = train(model, PEOPLE, writing, options, tmp_path / folder, max_minutes=minutes, progress=False)
        assert result.interrupted == (minutes == 0)
        step = batch([(p, r) for p in PEOPLE[:4] for r in writing.rows(p)], Chooser(writing.encoded.trie), QUICK)
        with torch.inference_mode():
            return target_losses(result.model.eval(), step, QUICK), [e["loss"] for e in result.log]

    whole, whole_log = run("whole", 10)
    for _ in range(3):
        run("parts", 0)  # one step each
    resumed, log = run("parts", 10)
    torch.testing.assert_close(resumed, whole, atol=1e-3, rtol=0)
    assert log[-1] == pytest.approx(whole_log[-1], abs=1e-3)


def test_looks_without_improvement_and_time_are_counted_on_after_a_stop(
    writing: Writing, tiny_model: Path, tmp_path: Path
) -> None:
    held_out = [batch([(p, r) for p in PEOPLE[:3] for r in writing.rows(p)], Chooser(writing.encoded.trie), QUICK)]
    options = replace(QUICK, learning_rate=1e-30, eval_every=1, patience=2)

    def run(minutes: float) -> Result:
        model = load_model(tiny_model, dtype="float32")
        return train(model, PEOPLE, writing, options, tmp_path, held_out=held_out, max_minutes=minutes, progress=False)

    assert run(0).n_steps == 1
    assert run(0).n_steps == 2
    state = tmp_path / "checkpoint-2" / "trainer_state.json"
    kept = json.loads(state.read_text())
    kept["log_history"][-1]["seconds"] += 1000
    state.write_text(json.dumps(kept))
    result = run(10)
    assert result.n_steps == 3, "the first look and two that were no better"
    assert result.seconds >= 1000
    assert [entry["seconds"] >= 1000 for entry in result.log if "loss" in entry] == [False, False, True]


def test_a_full_disk_costs_the_checkpoint_under_way_and_no_other(
    writing: Writing, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[float]:
        model = load_model(tiny_model, dtype="float32")
        return [entry["loss"] for entry in train(model, PEOPLE, writing, QUICK, tmp_path / "run", progress=False).log]

    keep, n_kept = Trainer._save_optimizer_and_scheduler, 0

    def full(self: Trainer, folder: str) -> None:
        nonlocal n_kept
        n_kept += 1
        if n_kept == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
        with pytest.raises(TrainingError, match="no room left"):
            run()
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    losses = run()  # from step 3: what was cut off at step 6 does not count
    whole = train(load_model(tiny_model, dtype="float32"), PEOPLE, writing, QUICK, tmp_path / "whole", progress=False)
    assert losses[-1] == pytest.approx(whole.log[-1]["loss"], abs=1e-3)


def test_another_runs_checkpoints_are_not_gone_on_from(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    train(load_model(tiny_model), PEOPLE, writing, QUICK, tmp_path, max_minutes=0, progress=False)
    with pytest.raises(TrainingError, match=r"another run \(learning_rate: 0.01 there, 0.02 now\)"):
        train(load_model(tiny_model), PEOPLE, writing, replace(QUICK, learning_rate=0.02), tmp_path, progress=False)
    with pytest.raises(TrainingError, match="another run"):
        train(load_model(tiny_model), PEOPLE[1:], writing, QUICK, tmp_path, progress=False)


def test_too_little_memory_says_what_to_lower(
    writing: Writing, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object) -> torch.Tensor:
        return torch.empty(1 << 60)

    monkeypatch.setattr("genrec.finetune.train.target_losses", allocate)
    with pytest.raises(TrainingError, match="not enough memory for steps of 400 tokens") as caught:
        train(load_model(tiny_model), PEOPLE, writing, QUICK, tmp_path, progress=False)
    assert "Lower step_tokens, to 200" in str(caught.value.hint)


def test_stopped_by_hand_is_not_stopped_for_want_of_progress(
    writing: Writing, tiny_model: Path, tmp_path: Path
) -> None:
    held_out = [batch([(p, r) for p in PEOPLE[:3] for r in writing.rows(p)], Chooser(writing.encoded.trie), QUICK)]
    options = replace(QUICK, eval_every=2, patience=2)
    arguments = {"held_out": held_out, "max_minutes": 0, "progress": False}
    assert train(load_model(tiny_model), PEOPLE, writing, options, tmp_path, **arguments).interrupted  # type: ignore


def test_adalora_does_not_go_on_and_says_so(writing: Writing, tiny_model: Path, tmp_path: Path) -> None:
    options = replace(QUICK, method="adalora")
    train(load_model(tiny_model), PEOPLE, writing, options, tmp_path, max_minutes=0, progress=False)
    with pytest.raises(TrainingError, match="cannot go on"):
        train(load_model(tiny_model), PEOPLE, writing, options, tmp_path, progress=False)
    with pytest.raises(ConfigError, match="no loss"):
        replace(QUICK, loss="Trie")  # type: ignore[arg-type]


SCRIPT = """
import json
import os
import sys
from pathlib import Path
import torch
from genrec.finetune.methods import load_model
from genrec.finetune.options import Options
from genrec.finetune.train import train
from genrec.tokenizer import HfTokenizer

folder, out, options, support = Path(sys.argv[1]), Path(sys.argv[2]), Options(**json.loads(sys.argv[3])), sys.argv[4]
sys.path.insert(0, support)
from people import learners, writing_with

torch.set_num_threads(1)
model = load_model(folder, dtype="float32")
result = train(model, learners(), writing_with(HfTokenizer(folder)), options, out, progress=False)
if os.environ.get("RANK", "0") == "0":
    print(f"FINAL {result.log[-1]['loss']} PROCESSES {os.environ.get('WORLD_SIZE', '1')}", flush=True)
if torch.distributed.is_initialized():  # or the one that ends first may take the other down
    torch.distributed.destroy_process_group()
"""


def arguments(model: Path, out: Path, **changed: object) -> list[str]:
    """What the script takes."""
    support = Path(__file__).parents[1] / "support"
    return [str(model), str(out), json.dumps(asdict(QUICK) | changed), str(support)]


@pytest.mark.slow
def test_kill_9_at_random_steps_costs_nothing_but_time(tiny_model: Path, tmp_path: Path) -> None:
    def run(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, *arguments(tiny_model, folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def final(process: subprocess.Popen[str]) -> float:
        output, _ = process.communicate()
        return float(output.split("FINAL")[1].split()[0])

    expected = final(run(tmp_path / "whole"))
    rng = random.Random(5)
    for trial in range(5):
        folder, n_kills = tmp_path / f"killed{trial}", 0
        while n_kills < 2:
            process = run(folder)
            deadline = time.monotonic() + 120
            n_before = len(list(folder.glob("checkpoint-*"))) if folder.is_dir() else 0
            while process.poll() is None and time.monotonic() < deadline:
                if folder.is_dir() and len(list(folder.glob("checkpoint-*"))) > min(n_before, 1):
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_kills += 1
        assert final(run(folder)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tiny_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def final(*launcher: str, folder: str, accumulate: int) -> float:
        told = arguments(tiny_model, tmp_path / folder, accumulate=accumulate, max_steps=4)  # no odd one at the end
        command = [sys.executable, *launcher, str(script), *told]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        loss, _, processes = done.stdout.split("FINAL")[1].split()[:3]
        assert int(processes) == (2 if launcher else 1)
        return float(loss)

    one = final(folder="one", accumulate=2)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    two = final(*launch, folder="two", accumulate=1)
    assert two == pytest.approx(one, abs=1e-3)
