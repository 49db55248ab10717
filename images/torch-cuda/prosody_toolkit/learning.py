"""Train a sequence encoder on masked tokens, so that a death in the middle changes nothing.

The state on the disk holds weights, optimizer, random numbers and the place in the order of the data.
What a killed run would have done next is what the resumed one does: on a CPU, with as many threads, the
same numbers to the last bit. I. Loshchilov and F. Hutter, "Decoupled weight decay regularization" (AdamW),
2019, and "SGDR" (the cosine), 2017.
"""

import dataclasses
import math
import os
import threading
import time
import typing as tp

import torch
from torch import nn

from prosody_toolkit import batches, storage
from prosody_toolkit.batches import Sequences
from prosody_toolkit.encoder import ProsodicSequenceEncoder
from prosody_toolkit.scoring import Score, evaluate
from worker.errors import Interrupted

STATE = "training.pt"
_RATES = {512: 5e-4, 768: 3e-4, 1024: 2e-4}  # peak of the learning rate, by size: wider networks take less
_DECAY = 0.01
_CLIP = 1.0  # norm of the gradient

Row = tp.Dict[str, float]  # of the learning curve


class Stopped(Interrupted):
    """The work was to end; it is on the disk and goes on from there."""


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to learn. `steps`, where given, ends it instead of `epochs`."""

    epochs: int = 40
    steps: tp.Optional[int] = None
    batch_tokens: int = 2048  # of one step, padding included
    learning_rate: tp.Optional[float] = None  # None: by the size of the network
    warmup: int = 100  # steps, or a tenth of all if that is less
    seed: int = 0
    checkpoint_seconds: float = 30.0  # between two states on the disk; 0: after every step

    def __post_init__(self) -> None:
        if self.epochs < 1 or (self.steps is not None and self.steps < 1) or self.batch_tokens < 1:
            raise ValueError("epochs, steps and batch_tokens must be at least 1")


@dataclasses.dataclass
class _State:
    """Where the training stands; everything but weights, optimizer and random numbers."""

    epoch: int = 0
    position: int = 0  # batches of the epoch that are done
    step: int = 0
    loss: float = 0.0  # sums of the epoch so far
    hidden: int = 0
    curve: tp.List[Row] = dataclasses.field(default_factory=list)


class Learning:
    """One training under way; `run` brings it to its end, from wherever its folder says that it stands."""

    def __init__(
        self,
        model: ProsodicSequenceEncoder,
        train: Sequences,
        validation: Sequences,
        folder: str,
        fingerprint: str,
        plan: TrainingPlan,
        device: str = "cpu",
    ) -> None:
        """Prepare.

        Args:
            model: with its first weights.
            train: sequences of at most `pos_max_len` tokens.
            validation: others, that nothing is learned from.
            folder: gets the state.
            fingerprint: of data and settings; a state of another one is not resumed.
            plan: how long and how fast.
            device: "cpu" or "cuda".
        """
        self._model = model.to(device)
        self._train, self._validation = train, validation
        self._path = os.path.join(folder, STATE)
        self._fingerprint = fingerprint
        self._plan = plan
        self._device = device
        self._peak = plan.learning_rate or _RATES.get(model.hidden_dim, 3e-4)
        per_epoch = len(batches.order(train, plan.batch_tokens, plan.seed, 0))
        self._warmup = max(1.0, min(plan.warmup, (plan.steps or plan.epochs * per_epoch) / 10))
        self._optimizer = torch.optim.AdamW(_groups(model), lr=self._peak, betas=(0.9, 0.98))
        self._state = _State()
        self._best: tp.Optional[tp.Dict[str, tp.Any]] = None
        self._saved = time.monotonic()
        self.score: Score = {}  # of the best weights, at the end

    def run(
        self,
        stop: tp.Optional[threading.Event] = None,
        on_step: tp.Callable[[int, float, float], None] = lambda step, share, loss: None,
        on_epoch: tp.Callable[[tp.List[Row]], None] = lambda curve: None,
    ) -> tp.List[Row]:
        """Train to the end, leave the weights of the lowest validation loss in the model, return the curve.

        Args:
            stop: when it is set, the state is written and `Stopped` raised.
            on_step: gets the step, the share of all work that is done, and the loss of the step.
            on_epoch: gets the learning curve so far.
        """
        with torch.random.fork_rng([] if self._device == "cpu" else [self._device]):
            torch.manual_seed(self._plan.seed)
            self._resume()
            while self._share() < 1:
                self._run_epoch(stop, on_step)
                on_epoch(self._state.curve)
        assert self._best is not None
        self._model.load_state_dict(self._best["state"])
        self.score = self._best["score"]
        self._model.eval()
        return self._state.curve

    def _run_epoch(self, stop: tp.Optional[threading.Event], on_step: tp.Callable[[int, float, float], None]) -> None:
        order = batches.order(self._train, self._plan.batch_tokens, self._plan.seed, self._state.epoch)
        while self._state.position < len(order) and self._share(len(order)) < 1:
            if stop is not None and stop.is_set():
                self._save()
                raise Stopped
            self._model.train()
            loss = self._learn(order[self._state.position], self._share(len(order)))
            self._state.position += 1
            self._state.step += 1
            on_step(self._state.step, self._share(len(order)), loss)
            if time.monotonic() - self._saved >= self._plan.checkpoint_seconds:
                self._save()
        self._end_epoch()
        self._save()

    def _learn(self, numbers: tp.List[int], share: float) -> float:
        """Take one step and return its loss."""
        rising = min(1.0, (self._state.step + 1) / self._warmup)
        rate = self._peak * rising * (0.55 + 0.45 * math.cos(math.pi * share))  # ends at a tenth
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        tokens = batches.pad([self._train[n] for n in numbers], self._model.padding_token_id).to(self._device)
        logits, _, hidden, original = self._model(tokens, training=True)
        loss = nn.functional.cross_entropy(logits[hidden], original[hidden])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), _CLIP)
        self._optimizer.step()
        count, value = int(hidden.sum()), loss.item()
        self._state.loss += value * count
        self._state.hidden += count
        return value

    def _end_epoch(self) -> None:
        state = self._state
        score = evaluate(self._model, self._validation, self._plan.batch_tokens, self._plan.seed)
        row = {"step": state.step, "epoch": state.epoch + 1, "train_loss": state.loss / max(1, state.hidden)}
        state.curve.append({**row, "validation_loss": score["loss"], "validation_accuracy": score["accuracy"]})
        if self._best is None or score["loss"] < self._best["score"]["loss"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}
            self._best = {"state": weights, "score": score}
        state.epoch, state.position, state.loss, state.hidden = state.epoch + 1, 0, 0.0, 0

    def _share(self, batches_per_epoch: tp.Optional[int] = None) -> float:
        """Return how much of the work is done, 0 to 1."""
        if self._plan.steps is not None:
            return self._state.step / self._plan.steps
        part = self._state.position / batches_per_epoch if batches_per_epoch else 0.0
        return (self._state.epoch + part) / self._plan.epochs

    def _save(self) -> None:
        random = {"cpu": torch.get_rng_state()}
        if self._device != "cpu":
            random["cuda"] = torch.cuda.get_rng_state(self._device)
        value = {
            "fingerprint": self._fingerprint,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": random,
            "state": dataclasses.asdict(self._state),
            "best": self._best,
        }
        storage.write_tensors(self._path, value)
        self._saved = time.monotonic()

    def _resume(self) -> None:
        found = read_state(self._path, self._fingerprint)
        if found is None:
            return
        self._model.load_state_dict(found["model"])
        self._optimizer.load_state_dict(found["optimizer"])
        self._state, self._best = _State(**found["state"]), found["best"]
        torch.set_rng_state(found["random"]["cpu"])
        if self._device != "cpu" and "cuda" in found["random"]:
            torch.cuda.set_rng_state(found["random"]["cuda"], self._device)


def read_state(path: str, fingerprint: str) -> tp.Optional[tp.Dict[str, tp.Any]]:
    """Return the state of a training, or None where there is none of this data and these settings.

    Raises:
        ValueError: it is damaged.
    """
    if not os.path.isfile(path):
        return None
    found = storage.read_tensors(path)
    return found if isinstance(found, dict) and found.get("fingerprint") == fingerprint else None


def _groups(model: nn.Module) -> tp.List[tp.Dict[str, tp.Any]]:
    """Return the parameters with and without decay: it is for matrices, not for biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": _DECAY}, {"params": others, "weight_decay": 0.0}]
