"""The training loop: packed steps in a fixed order through `transformers.Trainer`, resumable to the step.

All steps of all epochs are planned before the first, from the seed alone, so a run that was killed goes on with the
step and the data that would have come next. Knows the loop; what is learned and how it is written is
`packing`'s, `loss`'s and `methods`' business.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from genrec.errors import ConfigError, TrainingError
from genrec.finetune.checkpoints import explained, last_checkpoint
from genrec.finetune.frozen import Frozen
from genrec.finetune.loss import (
    Alternatives,
    alternatives,
    binary_losses,
    choice_losses,
    full_vocabulary,
    logits_of,
    trie_loss,
)
from genrec.finetune.merging import empty_ranks
from genrec.finetune.methods import adapt, frozen_and_learning, hidden_before, hidden_below, output_embeddings
from genrec.finetune.packing import Chooser, Packed, Writing, pack, plan
from genrec.history import History
from genrec.prompt import Row

MassOf = Callable[[History, int], np.ndarray]
"""Prior probability of each catalogue row before a person's moment, given by its index; shape ``(n_items,)``."""
OnLook = Callable[[int, float], bool]
"""Takes a step and the held-out loss there, nats a target; whether to stop."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train."""

    method: Literal["lora", "adalora", "bottleneck", "prefix", "full"] = "lora"
    """What learns."""
    rank: int = 32
    """Rank of a LoRA's updates; width of a bottleneck; length of a prefix."""
    alpha: float | None = None
    """Scale of the updates is this over rank; the rank when omitted."""
    dropout: float = 0.0
    """Share of an update's or a bottleneck's inputs that are dropped."""
    last_layers: int | None = None
    """Adapt the last so many layers alone; all when omitted."""
    loss: Literal["trie", "binary", "full-vocabulary"] = "trie"
    """Choose from what the trie allows, say yes or no to each of it, or choose from the whole vocabulary."""
    temperature: float = 1.0
    """Divides the model's logits in the loss."""
    gamma: float = 1.0
    """Weight of the model's logits in the loss."""
    beta: float = 0.0
    """Weight of the prior's log mass in the loss: above 0, the model learns what the prior does not know."""
    taught: float = 0.0
    """Share of the loss that is for saying what the prior says, not what was chosen (knowledge distillation)."""
    domain_epochs: float = 0.0
    """How often the texts of all items are read before the first person, token by token, over the whole vocabulary."""
    epochs: float = 2.0
    """How often each person is seen; a part of an epoch sees a part of them."""
    max_steps: int = 0
    """Optimizer steps at most; 0 for as many as the epochs take."""
    step_tokens: int = 2048
    """Token positions of one forward and backward pass: memory grows with it."""
    accumulate: int = 1
    """Passes of one optimizer step, in each process."""
    optimizer: str = "adamw_torch"
    """A name that transformers knows: adamw_torch, sgd, adafactor, rmsprop …"""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    schedule: str = "cosine"
    """How it falls, a name that transformers knows: cosine, linear, constant_with_warmup …"""
    warmup: float = 0.05
    """Share of the steps in which it rises."""
    weight_decay: float = 0.01
    """Pull of the weights towards zero."""
    clip: float = 1.0
    """Longest gradient."""
    seed: int = 0
    """Decides order, shuffles and first weights."""
    eval_every: int = 0
    """Optimizer steps between looks at the held-out people; 0 for none but at the end."""
    patience: int = 0
    """Looks without improvement after which to stop; 0 for never."""
    save_every: int = 50
    """Optimizer steps between checkpoints."""
    report_to: str = "none"
    """tensorboard, wandb or none."""

    def __post_init__(self) -> None:
        positive = ("rank", "epochs", "step_tokens", "accumulate", "learning_rate", "temperature", "save_every", "clip")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, and must be above 0")
        if self.loss not in ("trie", "binary", "full-vocabulary"):
            raise ConfigError(f"no loss {self.loss!r}", hint="Choose trie, binary or full-vocabulary.")
        if self.method == "adalora" and (self.rank < 2 or self.patience):
            raise ConfigError("AdaLoRA needs a rank from 2, and cannot go back to a better checkpoint: no patience")
        if self.beta < 0 or self.gamma <= 0 or (self.beta and self.loss == "full-vocabulary"):
            raise ConfigError(
                f"gamma {self.gamma} and beta {self.beta} cannot weigh model and prior in the loss {self.loss!r}",
                hint="gamma above 0; beta from 0, and 0 where the loss is not over the trie.",
            )
        if not 0 <= self.taught < 1 or (self.taught and self.loss == "full-vocabulary"):
            raise ConfigError(
                f"the prior cannot teach a share of {self.taught} of the loss {self.loss!r}",
                hint="From 0 up to, but not, 1; and 0 where the loss is not over the trie.",
            )
        if self.domain_epochs < 0:
            raise ConfigError(f"domain_epochs is {self.domain_epochs}, and must not be below 0")
        if self.patience and not self.eval_every:
            raise ConfigError("patience needs looks to count", hint="Set eval_every too.")

    @property
    def needs_prior(self) -> bool:
        """Whether the prior is part of the loss."""
        return bool(self.beta or self.taught)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step: what is read, and what is to be chosen."""

    packed: Packed
    index: torch.Tensor
    """Place before each choice. Shape ``(n_choices,)``."""
    among: Alternatives | None
    """What can be chosen; None for the whole vocabulary."""
    token: torch.Tensor
    """Token that was chosen. Shape ``(n_choices,)``."""
    target: torch.Tensor
    """Which target each choice belongs to. Shape ``(n_choices,)``."""
    weight: torch.Tensor
    """Weight of each target. Shape ``(n_targets,)``, float32."""


@dataclass(kw_only=True)
class Result:
    """What came of a training run."""

    model: Any
    """The adapted model, PEFT's or transformers'."""
    n_steps: int
    """Optimizer steps taken, those before a resumption included."""
    n_planned: int
    """Optimizer steps planned."""
    log: list[dict[str, float]]
    """What was logged, in order: step, seconds until then, loss (nats a target), eval_loss, learning_rate."""
    seconds: float
    """Time training took, before resumptions included."""
    n_tokens: int
    """Token positions computed in one epoch."""
    n_targets: int
    """Targets in one epoch."""
    interrupted: bool = False
    """Whether it was stopped early by hand; its last checkpoint is where it stopped."""


class Steps(torch.utils.data.Dataset):  # type: ignore[misc]
    """All steps of all epochs, in order.

    Args:
        people: Who is learned from.
        writing: How they are written.
        options: How to train.
        weight_of: Weight of a person's moment, given by its index; 1 when omitted.
        mass_of: Prior probabilities; needed where `options.needs_prior`.
    """

    def __init__(
        self,
        people: Sequence[History],
        writing: Writing,
        options: Options,
        *,
        weight_of: Callable[[History, int], float] | None = None,
        mass_of: MassOf | None = None,
    ) -> None:
        self.options, self.weight_of, self.mass_of = options, weight_of, mass_of
        self.chooser = Chooser(writing.encoded.trie)
        self.texts: list[np.ndarray] = []
        self.text_steps: list[list[int]] = []
        self.rows: list[tuple[History, Row]] = []
        self.steps: list[list[int]] = []
        self.n_tokens = self.n_targets = 0
        if options.domain_epochs:
            self.texts = list(writing.texts())
        for epoch in range(math.ceil(options.domain_epochs)):
            rng = random.Random(f"{options.seed} texts {epoch}")
            steps = plan([len(ids) for ids in self.texts], options.step_tokens, rng)
            self.text_steps += _part(steps, options.domain_epochs - epoch)
        for epoch in range(math.ceil(options.epochs)):
            rows = [
                (person, row)
                for person in people
                for row in writing.rows(person, random.Random(f"{options.seed} {epoch} {person.user_id}"))
            ]
            if not rows:
                raise TrainingError("there is nothing to learn: nobody has an item that the catalogue knows")
            rng = random.Random(f"{options.seed} {epoch}")
            n_shared = pack([row for _, row in rows[:200]]).lengths[0]
            steps = plan([len(row.token_ids) for _, row in rows], options.step_tokens, rng, n_shared=n_shared)
            self.steps += [[len(self.rows) + i for i in step] for step in _part(steps, options.epochs - epoch)]
            self.rows += rows
            if not epoch:
                self.n_targets = sum(len(row.target) for _, row in rows)
                self.n_tokens = sum(len(row.token_ids) - n_shared for _, row in rows) + n_shared * len(steps)

    @property
    def run(self) -> dict[str, Any]:
        """What decides the course of a run, to tell it from others."""
        ids = hashlib.blake2b(digest_size=8)
        for text in self.texts:
            ids.update(text.tobytes())
        for person, row in self.rows:
            ids.update(person.user_id.encode() + row.token_ids.tobytes())
        chosen = {key: value for key, value in asdict(self.options).items() if key not in ("save_every", "report_to")}
        return chosen | {"data": ids.hexdigest(), "genrec": version("genrec")}

    def __len__(self) -> int:
        return len(self.text_steps) + len(self.steps)

    def __getitem__(self, step: int) -> Batch:
        if step < len(self.text_steps):
            return text_batch([self.texts[i] for i in self.text_steps[step]])
        chosen = [self.rows[i] for i in self.steps[step - len(self.text_steps)]]
        return batch(chosen, self.chooser, self.options, weight_of=self.weight_of, mass_of=self.mass_of)


def batch(
    rows: Sequence[tuple[History, Row]],
    chooser: Chooser,
    options: Options,
    *,
    weight_of: Callable[[History, int], float] | None = None,
    mass_of: MassOf | None = None,
) -> Batch:
    """Make a step of some rows."""
    packed = pack([row for _, row in rows])
    whose = [(person, int(moment)) for person, row in rows for moment in row.moment]
    weight = [weight_of(*one) if weight_of else 1.0 for one in whose]
    if options.loss != "full-vocabulary":
        choices = chooser.to(packed.target)
        if options.needs_prior and mass_of is None:
            raise TrainingError("a loss with a prior in it needs the prior")
        masses = None if mass_of is None else [mass_of(*one) for one in whose]
        among = alternatives(chooser.trie, choices, masses)
        token = among.tokens[among.column[among.chosen]]
        index, target = packed.at(choices), choices.target
    else:
        among = None
        lengths = [len(chooser.trie.path(int(row))) for row in packed.target]
        target = np.repeat(np.arange(len(lengths)), lengths)
        depth = np.arange(len(target)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        after = packed.depth_step[target] + depth
        token = torch.from_numpy(packed.token_ids[after])
        index = np.where(depth == 0, packed.position[target], after - 1)
    return Batch(
        packed=packed,
        index=torch.from_numpy(index),
        among=among,
        token=token,
        target=torch.from_numpy(target),
        weight=torch.tensor(weight, dtype=torch.float32),
    )


def text_batch(texts: Sequence[np.ndarray]) -> Batch:
    """Make a step of some texts' ids, each of which is to be told from those before it."""
    lengths = np.array([len(ids) for ids in texts])
    flat = np.concatenate(texts).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(flat)) - np.repeat(starts, lengths)
    after = np.flatnonzero(place > 0)
    nothing = np.empty(0, np.int64)
    packed = Packed(
        token_ids=flat,
        position_ids=place,
        lengths=(0, *lengths.tolist()),
        position=nothing,
        depth_step=nothing,
        target=nothing,
        of=nothing,
    )
    return Batch(
        packed=packed,
        index=torch.from_numpy(after - 1),
        among=None,
        token=torch.from_numpy(flat[after]),
        target=torch.from_numpy(np.repeat(np.arange(len(texts)), lengths)[after]),
        weight=torch.ones(len(texts)),
    )


def _part(steps: list[list[int]], share: float) -> list[list[int]]:
    """The first of some steps."""
    return steps[: max(1, round(min(1.0, share) * len(steps)))]


def target_losses(model: Any, step: Batch, options: Options, frozen: Frozen | None = None) -> torch.Tensor:
    """What each target costs, nats; by the loss over the trie its negative log-probability. Shape ``(n_targets,)``."""
    below = None if frozen is None else frozen.below(step.packed, partial(hidden_below, model))
    hidden = hidden_before(model, step.packed, step.index, below=below)
    output = output_embeddings(model).weight
    if step.among is None:
        losses = full_vocabulary(hidden, output, step.token.to(hidden.device))
    else:
        losses = trie_loss(
            hidden,
            output,
            step.among.to(hidden.device),
            temperature=options.temperature,
            gamma=options.gamma,
            beta=options.beta,
            taught=options.taught if model.training else 0.0,
            losses=binary_losses if options.loss == "binary" else choice_losses,
        )
    found = torch.zeros(len(step.weight), device=losses.device)
    return found.index_add(0, step.target.to(losses.device), losses)


class _Loop(Trainer):  # type: ignore[misc]
    """`Trainer` over planned steps."""

    def __init__(
        self,
        *,
        options: Options,
        held_out: Sequence[Batch],
        on_look: OnLook | None,
        frozen: Frozen | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.options, self.held_out, self.on_look, self.frozen = options, held_out, on_look, frozen
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> Any:
        """The steps in their order; resuming skips those that were taken."""
        loader = torch.utils.data.DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only)
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Mean negative log-probability of the step's targets, by their weights."""
        step: Batch = inputs["step"]
        losses = target_losses(model, step, self.options, self.frozen)
        weight = step.weight.to(losses.device)
        loss = (losses * weight).sum() / weight.sum()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of step {self.state.global_step + 1} is {loss.item()}",
                hint="Lower learning_rate or raise warmup, and resume from the last checkpoint.",
            )
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean negative log-probability of the held-out targets."""
        metrics = {"eval_loss": float(np.mean(held_out_losses(self.model, self.held_out, self.options)))}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.on_look is not None and self.on_look(self.state.global_step, metrics["eval_loss"]):
            self.control.should_training_stop = True
        return metrics


def held_out_losses(model: Any, steps: Sequence[Batch], options: Options) -> np.ndarray:
    """Negative log-probability of each target of some steps, nats. Shape ``(n_targets,)``."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return np.concatenate([target_losses(model, step, options).cpu().numpy() for step in steps])
    finally:
        model.train(was_training)


@dataclass
class _Stop(TrainerCallback):  # type: ignore[misc]
    """Ends training after the step under way when asked to, with a checkpoint; notes the time; reminds AdaLoRA."""

    asked: threading.Event = field(default_factory=threading.Event)
    until_s: float = math.inf
    """When to stop by itself, on `time.monotonic`."""
    stopped: bool = False
    """Whether it did."""
    began_s: float = 0.0
    """When training would have begun without pauses, on `time.monotonic`."""

    @property
    def seconds(self) -> float:
        """How long training has taken, without pauses between a stop and a resumption."""
        return time.monotonic() - self.began_s

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count on from what the checkpoint's log says."""
        self.began_s = time.monotonic() - max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        state.log_history[-1]["seconds"] = round(self.seconds, 1)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Let AdaLoRA move ranks to where they count, which it does between a step and the next gradient."""
        if allocate := getattr(getattr(model, "base_model", None), "update_and_allocate", None):
            allocate(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Look whether to stop."""
        if state.global_step % 10 == 0:
            _give_back_memory()
        if _any_process(self.asked.is_set() or time.monotonic() > self.until_s):
            self.stopped = control.should_training_stop = control.should_save = True
        control.should_log |= control.should_save  # or the time since the last entry would be lost
        return control

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Let the first interrupt ask, where this is the main thread; the second ends the program as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(*_: Any) -> None:
            self.asked.set()
            signal.signal(signal.SIGINT, before)
            print("\nStopping after this step; its checkpoint is kept. Once more to stop at once.", file=sys.stderr)

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def train(
    model: Any,
    people: Sequence[History],
    writing: Writing,
    options: Options,
    folder: Path,
    *,
    held_out: Sequence[Batch] = (),
    weight_of: Callable[[History, int], float] | None = None,
    mass_of: MassOf | None = None,
    identity: Mapping[str, str] | None = None,
    max_minutes: float = math.inf,
    on_look: OnLook | None = None,
    progress: bool | None = None,
) -> Result:
    """Train a model on people, from its last checkpoint in the folder where there is one.

    Args:
        model: What `load_model` or, to learn on, `load_adapted` gave; it is changed in place.
        people: Who is learned from.
        writing: How they are written.
        options: How to train.
        folder: Where checkpoints are kept.
        held_out: Steps that are looked at and not learned from.
        weight_of: Weight of a person's moment, given by its index in the history; 1 when omitted.
        mass_of: Prior probabilities; needed where `options.needs_prior`.
        identity: What else tells this run from others whose checkpoints might lie there, as the base model does.
        max_minutes: When to stop by itself, with a checkpoint.
        on_look: Is told what each look at the held-out people found.
        progress: Whether to draw a bar on standard error; where that is a terminal when omitted.

    Raises:
        TrainingError: If there is nothing to learn, the loss is not a number, or a checkpoint is of another run.
    """
    steps = Steps(people, writing, options, weight_of=weight_of, mass_of=mass_of)
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))  # accelerate launch and torchrun say so; each takes its own
    n_planned = -(-len(steps) // (options.accumulate * n_processes))
    if options.max_steps:
        n_planned = min(n_planned, options.max_steps)
    last = last_checkpoint(folder, steps.run | {"processes": n_processes} | dict(identity or {}))
    if last and options.method == "adalora":
        raise TrainingError(
            f"AdaLoRA cannot go on from {last}: PEFT does not keep how its ranks were settled",
            hint=f"Remove {folder} to begin anew.",
        )
    torch.manual_seed(options.seed)
    if not hasattr(model, "peft_config"):
        model = adapt(
            model,
            options.method,
            rank=options.rank,
            alpha=options.alpha,
            dropout=options.dropout,
            last_layers=options.last_layers,
            n_steps=n_planned,
        )
    bar = sys.stderr.isatty() if progress is None else progress
    looks = bool(held_out and options.eval_every)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=n_planned,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.accumulate,
        optim=options.optimizer,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=math.ceil(options.warmup * n_planned),
        weight_decay=options.weight_decay,
        max_grad_norm=options.clip,
        seed=options.seed,
        logging_steps=max(1, min(10, n_planned // 20)),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if looks else "no",
        eval_steps=options.eval_every or None,
        save_strategy="steps",
        save_steps=options.eval_every if looks and options.patience else options.save_every,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=bool(looks and options.patience),
        metric_for_best_model="eval_loss" if looks else None,
        greater_is_better=False if looks else None,
        report_to=options.report_to,
        disable_tqdm=not bar,
        use_cpu=next(model.parameters()).device.type == "cpu",
        remove_unused_columns=False,
        label_names=[],
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process has one GPU: more of them by accelerate launch
    stop = _Stop(until_s=time.monotonic() + 60 * max_minutes)
    frozen = None
    if all(frozen_and_learning(model)):
        frozen = Frozen((row.token_ids for _, row in steps.rows), folder, n_processes=n_processes)
    loop = _Loop(
        options=options,
        held_out=held_out,
        on_look=on_look,
        frozen=frozen if frozen and frozen.again else None,
        model=model,
        args=arguments,
        train_dataset=steps,
        eval_dataset=list(held_out) if looks else None,
        callbacks=[stop, *([EarlyStoppingCallback(options.patience)] if options.patience else [])],
    )
    loop.remove_callback(PrinterCallback)
    try:
        with stop.on_interrupt(), empty_ranks(), closing(frozen) if frozen else nullcontext():
            loop.train(resume_from_checkpoint=last)
    except (RuntimeError, OSError, MemoryError, SafetensorError) as error:
        if (said := explained(error, folder, options.step_tokens)) is error:
            raise
        raise said from error
    return Result(
        model=loop.model,
        n_steps=loop.state.global_step,
        n_planned=n_planned,
        log=[entry for entry in loop.state.log_history if "loss" in entry or "eval_loss" in entry],
        seconds=stop.seconds,
        n_tokens=steps.n_tokens,
        n_targets=steps.n_targets,
        interrupted=stop.stopped and loop.state.global_step < n_planned,
    )


def choice_logits(model: Any, steps: Sequence[Batch]) -> list[torch.Tensor]:
    """The model's logits of all alternatives of some steps, for fitting how much it should count.

    Returns:
        For each step, shape ``(n_alternatives,)``, float32.
    """
    model.eval()
    output = output_embeddings(model).weight
    found = []
    with torch.no_grad():
        for step in steps:
            assert step.among is not None
            found.append(logits_of(hidden_before(model, step.packed, step.index), output, step.among).cpu())
    return found


def fit_weights(logits: Sequence[torch.Tensor], steps: Sequence[Batch]) -> tuple[float, float, float]:
    """Weights of the model and of the prior under which some targets are likeliest.

    Args:
        logits: What `choice_logits` gave.
        steps: The same steps, with a prior.

    Returns:
        gamma, beta, neither below 0, and the mean negative log-probability of a target under them, nats.
    """
    weights = torch.tensor([0.3, 0.7], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def again() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _mean_loss(logits, steps, weights[0], weights[1])
        loss.backward()
        return loss

    optimizer.step(again)
    gamma, beta = weights.tolist()
    gamma, beta = (0.0, 1.0) if gamma < 0 else (gamma, max(beta, 0.0))  # a model that is wrong has no say
    return gamma, beta, mean_loss(logits, steps, gamma, beta)


def mean_loss(logits: Sequence[torch.Tensor], steps: Sequence[Batch], gamma: float, beta: float) -> float:
    """Mean negative log-probability of a target under some weights of the model and the prior, nats.

    Args:
        logits: What `choice_logits` gave.
        steps: The same steps, with a prior.
        gamma: Weight of the model.
        beta: Weight of the prior.
    """
    return float(_mean_loss(logits, steps, torch.tensor(gamma), torch.tensor(beta)))


def _mean_loss(
    logits: Sequence[torch.Tensor], steps: Sequence[Batch], gamma: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    total = torch.zeros(())
    for logit, step in zip(logits, steps, strict=True):
        assert step.among is not None
        assert step.among.log_mass is not None
        total = total + choice_losses(gamma * logit + beta * step.among.log_mass, step.among).sum()
    return total / sum(len(step.weight) for step in steps)


def _any_process(wants: bool) -> bool:
    """Whether any of the processes that train together wants something; all of them get the same answer."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return wants
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    count = torch.tensor(int(wants), device=device)
    torch.distributed.all_reduce(count)
    return bool(count.item())


def _give_back_memory() -> None:
    """Return to the system what is free: steps of many shapes leave holes on a CPU's heap, which glibc would keep."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _only(batches: Sequence[Batch]) -> dict[str, Batch]:
    return {"step": batches[0]}
