"""The training loop: planned steps through `transformers.Trainer`, resumable to the step.

A run that was killed goes on with the step and the data that would have come next. Knows the loop, checkpoints and
looks at held-out people; what a step holds and costs is `steps`' business, what learns is `methods`'.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from genrec.errors import TrainingError
from genrec.finetune.checkpoints import explained, last_checkpoint
from genrec.finetune.frozen import Frozen
from genrec.finetune.merging import empty_ranks
from genrec.finetune.methods import adapt, frozen_and_learning
from genrec.finetune.options import Options
from genrec.finetune.packing import Writing
from genrec.finetune.steps import Batch, MassOf, Steps, held_out_losses, target_losses
from genrec.history import History

OnLook = Callable[[int, float], bool]
"""Takes a step and the held-out loss there, nats a target; whether to stop."""


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
