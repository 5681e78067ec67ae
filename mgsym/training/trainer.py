"""The training loop: one run's model, optimiser, data, and where it stands."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.evaluation.label_weights import with_label_weights
from mgsym.evaluation.metrics import SplitScores, score_graphs
from mgsym.evaluation.splits import Split
from mgsym.graph import Graph, collate, match_species
from mgsym.graph.operations import graph_hash, random_block
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.models.invariance import spread_of, turned
from mgsym.models.regression.base import DirectModel, refuse_start
from mgsym.nn.rotations import distributions_of
from mgsym.structure import index_species
from mgsym.training.checkpoint import load_checkpoint, save_checkpoint
from mgsym.training.config import Config
from mgsym.training.loss import training_loss
from mgsym.training.optimizer import (
    centre_predictions,
    copied,
    diverged,
    make_optimizer,
    rate_factor,
    restore_optimizer,
    set_rates,
    update_average,
)
from mgsym.training.runs import TrainedRun, end_run, only_checkpoint, start_run, write_history
from mgsym.training.teacher import TAUGHT, teacher_share, with_teacher
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.utils import processes
from mgsym.utils.files import save_safely
from mgsym.utils.processes import Share
from mgsym.utils.progress import Progress
from mgsym.utils.seeds import derived_seed, seed_device, shuffled
from mgsym.version import __version__

STATE_FORMAT = "mgsym-training"
STATE_VERSION = 1
ORIENTATIONS = 4  # in which a trained model that is not invariant predicts a structure


@dataclass(frozen=True)
class Hooks:
    """What goes on around training and changes nothing of its result.

    Attributes:
        folder: the run directory to write; None for none.
        graphs_from: the folder that the graphs were read from, for its record.
        save_seconds: how often the state is saved, at most.
        progress: called after each step, as `mgsym.training.train` says.
        should_stop: asked after each step.
    """

    folder: Path | None = None
    graphs_from: str | Path | None = None
    save_seconds: float = 10.0
    progress: Progress | None = None
    should_stop: Callable[[], bool] | None = None


@dataclass
class TrainingState:
    """Say where a run stands.

    Attributes:
        epoch: epochs completed.
        step: steps done of the epoch after those.
        loss_sum, loss_count: of the steps since the last evaluation.
        best, best_epoch: highest mean per-structure Pearson on validation, and when.
        worse: evaluations since then.
        seconds: time spent, over all resumptions.
        stopped: why training ended before its last epoch; empty while it has not.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    worse: int = 0
    seconds: float = 0.0
    stopped: str = ""
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """One run: the model, its optimiser, the data, and where it stands.

    Args:
        split: which graphs train, validate and test.
        config: the settings.
        device: where to train.
        start_from: a run or checkpoint whose weights to start from.
        hooks: what goes on around it.
    """

    def __init__(
        self,
        split: Split,
        config: Config,
        device: torch.device,
        start_from: str | Path | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        hooks = hooks or Hooks()
        self.folder, self.graphs_from = hooks.folder, hooks.graphs_from
        self.save_seconds, self.progress = hooks.save_seconds, hooks.progress
        self.should_stop = hooks.should_stop
        seed_device(device, derived_seed(config.seed, "weights"))
        self.config, self.training, self.device = config, config.training, device
        if 0 < config.training.block <= 2 * split.train[0].cutoff:
            raise UsageError(
                f"training.block is {config.training.block:g} Å, expected more than twice the "
                f"cutoff of {split.train[0].cutoff:g} Å, or 0 for whole structures"
            )
        weights = (config.training.label_weights, config.training.label_floor)
        self.split = replace(split, train=with_label_weights(split.train, *weights))
        self.start_from = start_from
        self.model = self._make_model(start_from)
        self.training_set = TrainingSet.of(split.train)
        self.hashes = {g.names[0]: graph_hash(g) for _, gs in split.items() for g in gs}
        self.graphs = {role: [self._ready(g) for g in gs] for role, gs in self.split.items()}
        self.optimizer = make_optimizer(self.training, self.model)
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=self.training.precision == "float16"
        )
        averaged = self.training.ema_decay and not isinstance(self.model, DirectModel)
        self.average = copy.deepcopy(self.model) if averaged else None
        self.taught = bool(self.training.teacher) and not isinstance(self.model, DirectModel)
        size = self.training.batch_size or len(split.train)
        self.steps_per_epoch = -(-len(split.train) // size)
        self.total = self.steps_per_epoch * self.training.epochs
        self.kept: tuple[Graph, Share | None] | None = None  # the batch, where there is but one
        self.state, self.resumed = TrainingState(), False
        self.best_weights = copied(self.model.state_dict())
        self.started = self.saved = time.monotonic()
        self.seconds_before = 0.0  # of those before it was resumed

    def _make_model(self, start_from: str | Path | None) -> BarrierModel:
        train = self.split.train
        if start_from is not None:
            model, metadata = load_checkpoint(only_checkpoint(start_from))
            refuse_start(model, metadata.model.name)
            self.config = replace(self.config, model=metadata.model)
        else:
            species, _ = index_species([s for g in train for s in g.species])
            config = self.config.model.for_graphs(train)
            self.config = replace(self.config, model=config)
            model = create_model(config.name, species, train[0].cutoff, config.options)
            model.fit_statistics([match_species(g, species) for g in train])
        return model.to(self.device)

    def _ready(self, graph: Graph) -> Graph:
        """On the device, its species the model's, with what no step needs to compute again."""
        if abs(graph.cutoff - self.model.cutoff) > 1e-6:
            raise InputError(
                f"{graph.names[0]} has a cutoff of {graph.cutoff:g} Å, the model one of "
                f"{self.model.cutoff:g} Å: build the graphs alike"
            )
        with torch.no_grad():
            return self.model.prepare(match_species(graph, self.model.species).to(self.device))

    # ---- the loop ----

    def run(self) -> TrainedRun:
        """Train from where the run stands to its end, and score the best epoch."""
        if self.folder is not None and not self.resumed:
            self._write_start()
        self.started = self.saved = time.monotonic()
        self.seconds_before = self.state.seconds
        if isinstance(self.model, DirectModel):
            self._fit(self.model)
            return self._finish()
        if teacher_share(self.training, self.steps_done, self.total):
            self.graphs["train"] = with_teacher(
                self.graphs["train"], self.training.teacher, self.model, self._after_part
            )
        if self.steps_per_epoch == 1 and not self.training.block:
            self.kept = self._part(list(range(len(self.split.train))))
        while self.state.epoch < self.training.epochs and not self.state.stopped:
            self._epoch()
        return self._finish()

    def _fit(self, model: DirectModel) -> None:
        """A model without gradients: fitted in one go in place of all epochs."""
        if self.state.history:  # resumed after it was fitted
            return
        model.fit(self.graphs["train"], self._after_part)
        self.state.seconds = self.seconds_before + time.monotonic() - self.started
        self._evaluate()

    def _after_part(self, done: float, total: float | None = None, **info: object) -> None:
        if self.progress is not None:
            self.progress(done, total, **info)
        if self.should_stop is not None and self.should_stop():
            self._interrupt()

    def _epoch(self) -> None:
        state = self.state
        batches = self._batches(state.epoch)
        while state.step < len(batches) and not state.stopped:
            self._step(*self._batch(batches[state.step]))
            state.step += 1
            self._after_step()
        complete = state.step == len(batches)
        if complete:
            state.epoch, state.step = state.epoch + 1, 0
        due = state.epoch % self.training.evaluate_every == 0
        if state.stopped or state.epoch == self.training.epochs or (complete and due):
            self._evaluate()

    def _batches(self, epoch: int) -> list[list[int]]:
        """Which structures each step of an epoch takes."""
        count = len(self.graphs["train"])
        if self.steps_per_epoch == 1:
            return [list(range(count))]
        order = shuffled(count, self.config.seed, "order", epoch)
        size = self.training.batch_size
        return [order[i : i + size] for i in range(0, count, size)]

    def _batch(self, members: list[int]) -> tuple[Graph, Share | None]:
        return self.kept or self._part(members)

    def _part(self, members: list[int]) -> tuple[Graph, Share | None]:
        """Some structures side by side: of several processes, those that this one takes."""
        graphs = [self._block(i) for i in members]
        if processes.count() == 1:
            return collate(graphs), None
        own = processes.own_share(len(graphs))
        nodes, edges = [g.num_nodes for g in graphs], [g.num_edges for g in graphs]
        share = Share(*((sum(n[: own.start]), sum(n[own]), sum(n)) for n in (nodes, edges)))
        # a process may have none: it joins in the sums with no atoms
        none = graphs[0].types.new_empty(0)
        return collate(graphs[own] or [graphs[0].subgraph(none)[0]]), share

    def _block(self, member: int) -> Graph:
        """A training structure, or the random block of it that this step takes."""
        graph, state, side = self.graphs["train"][member], self.state, self.training.block
        if not side:
            return graph
        seed = derived_seed(self.config.seed, "block", state.epoch, state.step, member)
        part, complete = random_block(graph, side, torch.Generator().manual_seed(seed))
        # an atom whose neighbours were cut off teaches nothing
        features = dict(part.node_features)
        if TAUGHT in features:
            features[TAUGHT] = torch.where(complete, features[TAUGHT], torch.nan)
        target = torch.where(complete, part.target, torch.nan)
        return part.replace(target=target, node_features=features, prepared=part.prepared)

    def _step(self, batch: Graph, share: Share | None) -> None:
        """Take one step down the gradient of the loss."""
        state, done = self.state, self.steps_done
        seed_device(self.device, derived_seed(self.config.seed, "step", state.epoch, state.step))
        factor = rate_factor(self.training, done, self.total)
        teacher = teacher_share(self.training, done, self.total)
        set_rates(self.optimizer, self.training.learning_rate * factor)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with processes.shared_batch(share):
                loss = training_loss(self.training, self.model, batch, teacher)
                value = float(processes.batch_sum(loss.detach()))
                if not math.isfinite(value):
                    raise MgsymError(diverged(self.training, value, state.epoch, state.step))
                self.scaler.scale(loss).backward()
        except torch.OutOfMemoryError as error:
            raise MgsymError(
                f"memory is full with {batch.num_nodes} atoms in a step: use batch_size=1 or a CPU"
            ) from error
        if share is not None:
            processes.sum_gradients(self.model.parameters())
        if self.training.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            update_average(self.average, self.model, self.training.ema_decay, done)
        state.loss_sum, state.loss_count = state.loss_sum + value, state.loss_count + 1

    def _after_step(self) -> None:
        state = self.state
        state.seconds = self.seconds_before + time.monotonic() - self.started
        if self.progress is not None:
            self.progress(self.steps_done, self.total, **self._message())
        late = bool(self.training.max_minutes) and state.seconds > 60 * self.training.max_minutes
        late, stop = processes.any_of([late, self.should_stop is not None and self.should_stop()])
        if late:
            state.stopped = f"{self.training.max_minutes:g} minutes are over"
        elif stop:
            self._interrupt()
        elif time.monotonic() - self.saved > self.save_seconds:
            self._save()

    def _evaluate(self) -> None:
        """Score the validation structures; keep the weights when they are the best so far."""
        state = self.state
        model = self.model if self.average is None else self.average
        scores = self._scores(model, "validation")
        state.history.append({**self._history_row(scores), **distributions_of(model)})
        state.loss_sum, state.loss_count = 0.0, 0
        value = scores.mean_pearson
        if math.isnan(value):
            raise MgsymError(
                "a prediction for the validation structures is not a number: try a lower learning "
                f"rate than {self.training.learning_rate:g}, and look for wrong labels or inputs"
            )
        if value > state.best or not self.graphs["validation"]:
            state.best, state.best_epoch, state.worse = value, state.epoch, 0
            self.best_weights = copied(model.state_dict())
            self._write_best()
        else:
            state.worse += 1
            if self.training.patience and state.worse >= self.training.patience:
                state.stopped = f"no better for {state.worse} evaluations"
        if self.folder:
            write_history(self.folder / "metrics.csv", state.history)

    def _history_row(self, scores: SplitScores) -> dict[str, float]:
        state = self.state
        share = teacher_share(self.training, self.steps_done - 1, self.total)  # of the last step
        return {
            "epoch": state.epoch,
            "step": self.steps_done,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "train_loss": state.loss_sum / max(state.loss_count, 1),
            "validation_pearson": scores.mean_pearson,
            "validation_pearson_pooled": scores.pooled.pearson,
            "validation_mae_eV": scores.pooled.mae,
            "seconds": round(state.seconds, 3),
            **({"teacher_share": share} if self.taught else {}),
        }

    def _scores(self, model: BarrierModel, role: str) -> SplitScores:
        seed_device(self.device, derived_seed(self.config.seed, "evaluation"))
        model.eval()
        with torch.no_grad():
            predictions = [model(g).float().cpu() for g in self.graphs[role]]
        return score_graphs(predictions, getattr(self.split, role))

    def _finish(self) -> TrainedRun:
        self._save()
        self.model.load_state_dict(self.best_weights)
        centre_predictions(self.model, self.graphs["train"])
        self.best_weights = copied(self.model.state_dict())
        scores = {role: self._scores(self.model, role) for role, gs in self.graphs.items() if gs}
        self._write_best(scores)
        self._write_end("finished", {role: s.as_dict() for role, s in scores.items()})
        return TrainedRun(
            model=self.model.eval(),
            config=self.config,
            history=self.state.history,
            scores=scores,
            split=self.split.names(),
            best_epoch=self.state.best_epoch,
            stopped=self.state.stopped,
            folder=self.folder,
        )

    def _rotated(self) -> float | None:
        """How far predictions move as a structure turns, eV (rms); None for invariant models."""
        if self.model.invariant == "yes":
            return None
        graph = next(g for role in ("test", "validation", "train") for g in self.graphs[role])
        self.model.eval()
        with torch.no_grad():
            each = [self.model(rotated).double() for rotated in turned(graph, ORIENTATIONS)]
        return spread_of(torch.stack(each), float(self.model.label_scale)).rms

    # ---- what is said and written ----

    def _write_start(self) -> None:
        assert self.folder is not None
        facts = {
            "device": str(self.device),
            "split": self.split.names(),
            "graphs_sha256": self.hashes,
            "start_from": str(self.start_from or ""),
            "graphs_from": str(self.graphs_from or ""),
            "transforms_start": distributions_of(self.model),
        }
        start_run(self.folder, self.config, facts)

    def _write_best(self, scores: dict[str, SplitScores] | None = None) -> None:
        if self.folder is None:
            return
        extra = {
            "epoch": self.state.best_epoch,
            "seed": self.config.seed,
            "preset": self.config.preset,
            "mgsym": __version__,
            "scores": {role: s.as_dict() for role, s in (scores or {}).items()},
        }
        save_checkpoint(
            self.folder / "best.pt",
            self.model,
            self.config.model,
            self.training_set,
            extra,
            state=self.best_weights,
        )

    def _write_end(self, status: str, scores: dict[str, Any]) -> None:
        if self.folder is None:
            return
        state = self.state
        facts = {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "stopped": state.stopped,
            "seconds": round(state.seconds, 3),
            "parameters": self.model.num_parameters,
            "scores": scores,
            **({"rotation_rms_eV": self._rotated()} if status == "finished" else {}),
        }
        end_run(self.folder, status, facts)

    @property
    def steps_done(self) -> int:
        return self.state.epoch * self.steps_per_epoch + self.state.step

    def _message(self) -> dict[str, Any]:
        state = self.state
        message: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "loss": state.loss_sum / max(state.loss_count, 1),
        }
        if state.history and self.graphs["validation"]:
            message["validation"] = state.history[-1]["validation_pearson"]
            message["best"] = state.best
        return message

    def _interrupt(self) -> None:
        state = self.state
        done = f"training was interrupted in epoch {state.epoch + 1} of {self.training.epochs}"
        if self.folder is None and processes.rank() > 0:
            raise Interrupted(done)  # the first process has saved and tells more
        if self.folder is None:
            raise Interrupted(f"{done}; nothing was saved, as no run directory was given")
        self._save()
        self._write_end("interrupted", {})
        raise Interrupted(f"{done}; go on with: mgsym train --resume {self.folder}")

    def _save(self) -> None:
        if self.folder is None:
            return
        content = {
            "format": STATE_FORMAT,
            "format_version": STATE_VERSION,
            "config": self.config.flat(),
            "hashes": self.hashes,
            "split": self.split.names(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "best_weights": self.best_weights,
            "state": asdict(self.state),
        }
        save_safely(self.folder / "last.pt", content)
        self.saved = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to where `_save` was called."""
        self.model.load_state_dict(saved["best_weights"])
        self.best_weights = copied(self.model.state_dict())  # by the names of this version
        self.model.load_state_dict(saved["model"])
        restore_optimizer(self.optimizer, saved["optimizer"], self.model)
        self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None and saved["average"]:
            self.average.load_state_dict(saved["average"])
        self.state, self.resumed = TrainingState(**saved["state"]), True
