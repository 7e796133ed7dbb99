"""The contracts between rooms: a model that can be sampled, data that can be counted, a metric.

Images are float tensors (N, C, H, W) with values in [-1, 1] wherever a model sees them. On disk, on
the way to the device and in metrics they are uint8 level indices 0 .. levels - 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.losses.likelihood import Likelihood
from genbench.training.accumulation import Accumulation
from genbench.training.cuda_graph import Capture, make_capturable
from genbench.training.guards import Guard, Skipped, guard_of
from genbench.training.means import RunningMeans
from genbench.training.scaling import PlayerScaling

STEP_HOOK = "on_before_optimizer_step"


BACKWARD_HOOKS = ("on_before_backward", "on_after_backward")


MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Player(NamedTuple):
    """Modules that one optimizer moves."""

    modules: Sequence[nn.Module]
    optimizer: MakeOptimizer

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter of the player, once."""
        return [p for module in self.modules for p in module.parameters()]


class Elbo(NamedTuple):
    """The two halves of the evidence lower bound in nats, (N,) each; elbo = -(rate + distortion)."""

    rate: Tensor
    distortion: Tensor


class GenerativeModel(LightningModule, ABC):
    """Anything that can be sampled; what trains it is its `step`.

    A subclass writes `players`, `step` and `sample`, and where it can `reconstruct` and `elbo`.
    The rest of this class is what a fair comparison needs to be equal for all of them: one counted
    step per step, randomness that depends on (seed, step) alone, one place where gradients meet
    an optimizer.
    """

    counted: ClassVar[str] = ""  # the player that owns the decoder: its steps are the clock
    decoder: nn.Module  # latents to raw images, for models that are trained
    latent_dim: int
    discriminator_steps: int = 1  # pieces in which `step` takes its images
    has_gradient_penalty: bool = False  # whether a gradient is part of a loss

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.seed = 0
        self.batch_size = 0  # images shown to the decoder per step, over all ranks
        self.steps = 0  # steps done, the position of the run
        self.after_step: Callable[[Any], None] | None = None
        self.rate: Callable[[int], float] | None = None  # of learning, by images shown; None: as is
        self.clip: Mapping[str, float] = {}  # largest gradient norm, by player
        self.accumulation: Accumulation | None = None
        self.capture: Capture | None = None  # in a CUDA graph
        self._means = RunningMeans()
        self._guards: dict[str, Guard] = {}
        self._skipped: dict[str, Skipped] = {}  # by a checkpoint, until there are guards
        self._by_player: dict[str, Any] = {}
        self._others: dict[str, list[nn.Parameter]] = {}
        self._rates: dict[str, list[float]] = {}  # as configured, one for each parameter group
        self._plain_steps, self._plain_backward = False, False
        self._scaling: PlayerScaling | None = None  # under 16-mixed
        self._generator: torch.Generator | None = None
        self._world, self._rank = 1, 0

    # --- written by a model ---------------------------------------------------------------------

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """Who moves, in the order of `step`; empty for a model that is not trained."""

    @abstractmethod
    def step(self, images: Tensor) -> None:
        """One step of every player on images (N, C, H, W); N / discriminator_steps go to the decoder."""

    @abstractmethod
    def sample(self, z: Tensor) -> Tensor:
        """Turn latents, as drawn by `latents`, into images (N, C, H, W) in [-1, 1]."""

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` latents on the CPU from the prior N(0, I)."""
        return torch.randn(n, self.latent_dim, generator=generator)

    def observe(self, data: "ImageData") -> None:  # noqa: B027
        """See the data before training; for models that need to (none that is trained does)."""

    # --- the same for all -----------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer per player."""
        players = self.players()
        made = [player.optimizer(player.parameters()) for player in players.values()]
        # now: a checkpoint brings the rates of its own step
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in made]
        self._rates = dict(zip(players, rates, strict=True))
        return made

    def on_fit_start(self) -> None:
        """Name the optimizers once: Lightning hands them out as a list."""
        optimizers = self.optimizers()
        listed = optimizers if isinstance(optimizers, list) else [optimizers]
        players = self.players()
        self._by_player = dict(zip(players, listed, strict=True))
        self._others = {name: _moved_by_others(name, players) for name in players}
        self._world, self._rank = self.trainer.world_size, self.trainer.global_rank
        plugin = self.trainer.precision_plugin
        self._scaling = plugin if isinstance(plugin, PlayerScaling) else None
        scaled = getattr(plugin, "scaler", None) is not None
        self._plain_steps = not scaled and not self._heard(STEP_HOOK, GenerativeModel)
        self._plain_backward = (
            not scaled
            and self._world == 1
            and not any(self._heard(hook, LightningModule) for hook in BACKWARD_HOOKS)
        )
        for name, wrapped in self._by_player.items():
            own = players[name].parameters()
            guard = guard_of(own, wrapped.optimizer, self.device, scaled=scaled)
            guard.skipped = self._skipped.get(name, Skipped())
            self._guards[name] = guard
        self._means.to(self.device)
        if self.capture is not None and not self._plain_steps:
            raise UserMistake(
                "trainer.cuda_graph=true takes steps without Python, and a callback wants to see each "
                "of them: leave it out, or choose trainer.cuda_graph=false"
            )

    def _heard(self, hook: str, base: type[LightningModule]) -> bool:
        """Tell whether a callback, or a model that is more than `base`, wants to be told of a hook."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return any(is_overridden(hook, c, Callback) for c in callbacks) or is_overridden(
            hook, self, base
        )

    def on_train_start(self) -> None:
        """Prepare the optimizers for a capture, once they have what a checkpoint holds."""
        wrapped = {name: lightning.optimizer for name, lightning in self._by_player.items()}
        make_capturable(wrapped, self.capture is not None)

    @property
    def images_shown(self) -> int:
        """Images shown to the decoder so far: the clock of the run."""
        return self.steps * self.batch_size

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Loop over the steps in a loader's batch, each with randomness of its own."""
        for images in torch.split(batch, self.discriminator_steps * self.batch_size // self._world):
            self._set_rates()
            self.draw_from(self.steps)
            if self.capture is not None:
                self._replay(self.capture, images)
            elif self.accumulation is None:
                self.step(images)
            else:
                begin = partial(self.draw_from, self.steps)
                self.accumulation.step(images, self.discriminator_steps, begin, self.step)
            self.steps += 1
            if self.after_step is not None:
                self.after_step(self)

    def _replay(self, capture: Capture, images: Tensor) -> None:
        """Take a step from its CUDA graph; what the host counts, it counts here."""
        assert self._generator is not None
        if capture.step(images, self.step, self._generator, self._means.add):
            self._by_player[self.counted]._on_before_step()
            self._by_player[self.counted]._on_after_step()

    def draw_from(self, step: int) -> None:
        """Let the next draws depend on (seed, step) alone, whatever was drawn, logged or resumed."""
        if self._generator is None or self._generator.device != self.device:
            self._generator = torch.Generator(self.device)
        self._generator.manual_seed((self.seed * 1_000_003 + step) * 4_099 % 2**63)

    def noise(self, n: int, *shape: int) -> Tensor:
        """Draw N(0, 1) of shape (n, *shape): this rank's rows of a draw made for all ranks."""
        return self._draw(torch.randn, n, shape)

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Draw U(0, 1), otherwise as `noise`."""
        return self._draw(torch.rand, n, shape)

    def _draw(self, draw: Callable[..., Tensor], n: int, shape: Sequence[int]) -> Tensor:
        if self._generator is None:
            self.draw_from(self.steps)
        parts, part = 1, 0
        if self.accumulation is not None:
            parts, part = self.accumulation.number, self.accumulation.index
        rows = draw(n * parts * self._world, *shape, generator=self._generator, device=self.device)
        first = (self._rank * parts + part) * n
        return rows[first : first + n]

    def update(self, player: str, loss: Callable[[], Tensor]) -> None:
        """One backward and one step of `player` on `loss()`, every other player frozen.

        `loss()` is a mean over its images.
        """
        if self._scaling is not None:
            self._scaling.select(player)
        if self.accumulation is not None:
            self._accumulate(player, loss, self.accumulation)
            return
        with self._only(player):
            value = loss()
            self._by_player[player].zero_grad()
            seed = self._guards[player].seed(value)
            if self._plain_backward:  # nobody listens: 0.15 ms less
                torch.autograd.backward(value, seed)
            else:
                self.manual_backward(value, gradient=seed)
        self.track(f"loss/{player}", value)
        self._move(player)

    def _accumulate(self, player: str, loss: Callable[[], Tensor], parts: Accumulation) -> None:
        """`update` on one part of the batch; the last one moves the player. Ends the replay."""
        assert self._generator is not None
        if parts.passes_over(self._generator):
            return
        with self._only(player):
            value = loss()
            if parts.index == 0:
                self._by_player[player].zero_grad()
            with nullcontext() if parts.last else self._without_exchange():
                seed = self._guards[player].seed(value)
                self.manual_backward(value / parts.number, gradient=seed)
        self.track(f"loss/{player}", value)
        if parts.last:
            self._move(player)
        parts.end(self._generator)

    def _without_exchange(self) -> AbstractContextManager[None]:
        """Keep gradients to this rank; several of them are exchanged in one go."""
        wrapped = self.trainer.strategy.model
        return wrapped.no_sync() if hasattr(wrapped, "no_sync") else nullcontext()  # type: ignore[union-attr,operator]

    def _move(self, player: str) -> None:
        """One step of a player's optimizer on its gradients, if they are numbers."""
        if self._guards[player].judge():  # before clipping, which would spread what is no number
            return
        optimizer = self._by_player[player]
        if player != self.counted:  # Lightning resets these hooks on every batch
            optimizer._on_before_step = optimizer._on_after_step = _no_count
        if self.capture is not None and self.capture.is_recording:  # `_replay` counts
            self._clip(player)
            optimizer.optimizer.step()
        elif self._plain_steps:  # nobody listens: 0.1 ms less
            optimizer._on_before_step()
            self._clip(player)
            optimizer.optimizer.step()
            optimizer._on_after_step()
        else:
            optimizer.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip here and nowhere else: before, 16-mixed has not taken its scale off the gradients.

        From the gradients of a fused optimizer Lightning never does, as its step would.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for player, wrapped in self._by_player.items():
            if wrapped.optimizer is optimizer and player in self.clip:
                if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                    scaler.unscale_(optimizer)
                self._clip(player)

    def _clip(self, player: str) -> None:
        if player in self.clip:
            parameters = [p for g in self._by_player[player].param_groups for p in g["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip[player])

    def _set_rates(self) -> None:
        """Give every optimizer the learning rate of this step."""
        if self.rate is None:
            return
        factor = self.rate(self.images_shown)
        for player, rates in self._rates.items():
            groups = self._by_player[player].optimizer.param_groups
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * factor

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each player's last step, by `lr/<player>`; empty where they are constant."""
        if self.rate is None:
            return {}
        optimizers = self._by_player.items()
        return {f"lr/{name}": float(o.optimizer.param_groups[0]["lr"]) for name, o in optimizers}

    @contextmanager
    def _only(self, player: str) -> Iterator[None]:
        frozen = self._others[player]
        for p in frozen:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in frozen:
                p.requires_grad_(True)

    def track(self, name: str, value: Tensor) -> None:
        """Add a scalar to the running mean `name`; stays on the device until `means`."""
        if self.capture is None or not self.capture.keeps(name, value):
            self._means.add(name, value)

    def means(self) -> dict[str, float]:
        """Mean of the finite values tracked since the last call, NaN where none was; one transfer.

        Over all ranks: every one of them must call it at the same step.
        """
        return self._means.take(self._world)

    def skipped(self) -> dict[str, Skipped]:
        """Steps that each player left out because a loss or a gradient was no number."""
        return {name: guard.skipped for name, guard in self._guards.items()} or self._skipped

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of each network by its name."""
        counts = {k: sum(p.numel() for p in m.parameters()) for k, m in self.named_children()}
        return {name: count for name, count in counts.items() if count}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the position of the run, and what was tracked since the last row of the history."""
        checkpoint["genbench_steps"] = self.steps
        checkpoint["genbench_means"] = self._means.state_dict()
        checkpoint["genbench_skipped"] = {name: tuple(s) for name, s in self.skipped().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the position of the run up again."""
        self.steps = checkpoint["genbench_steps"]
        if "genbench_means" in checkpoint:  # older checkpoints have neither
            self._means.load_state_dict(checkpoint["genbench_means"])
            skipped = checkpoint["genbench_skipped"]
            self._skipped = {name: Skipped(*counts) for name, counts in skipped.items()}


def _no_count() -> None:
    """Stand in for Lightning's step counter: only the counted player advances `global_step`."""


def _moved_by_others(player: str, players: Mapping[str, Player]) -> list[nn.Parameter]:
    """Parameters to freeze while `player` moves: those of others that it does not share."""
    own = {id(p) for p in players[player].parameters()}
    others = [p for name, other in players.items() if name != player for p in other.parameters()]
    return [p for p in others if p.requires_grad and id(p) not in own]


@runtime_checkable
class Reconstructs(Protocol):
    """A model with an encoder."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode to the posterior mean and decode: (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class HasPosterior(Protocol):
    """A model whose encoder gives a distribution of latents."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | images), (N, latent_dim) each."""
        ...


@runtime_checkable
class HasLikelihood(HasPosterior, Protocol):
    """A model whose objective bounds log p(x)."""

    likelihood: "Likelihood"

    def log_prob(self, images: Tensor, z: Tensor) -> Tensor:
        """Log p(images | z), in nats per image, (N,)."""
        ...

    def elbo(self, images: Tensor, noise: Tensor) -> Elbo:
        """Bound log p(images) at beta = 1, with posterior draws from `noise` (N, latent_dim)."""
        ...
