"""What training costs beside time: rows through the networks, real images, multiply-adds.

A trial step on zeros is measured before training, and a run's moves are counted while it trains; a
total is moves times the work of a move. Rows are the latents or images of all calls of a network.
Multiply-adds are those of matrix products, convolutions and attention, forward and backward, with all
penalties, half of what `torch.utils.flop_counter` calls flops; elementwise work, norms and optimizers
are not in it. What one image takes in one forward is counted for each network, too.

Counted is the method: a batch taken in parts, over several DDP ranks or from a CUDA graph counts as the
plain one, although parts compute again what precedes a move.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from genbench.data.contract import ImageData
from genbench.device import is_out_of_memory
from genbench.models.condition import example
from genbench.models.contract import GenerativeModel
from genbench.models.drawing import evaluating
from genbench.training.checks import check_counted, check_move, check_moves, misfit
from genbench.training.seat import frozen

IMAGES = 2  # in each batch of the trial step

# fused attention on a CPU, where the trial step is made: PyTorch's registry has that of GPUs alone
_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
        sdpa_flop_count(q.shape, k.shape, v.shape)  # type: ignore[no-untyped-call]
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape)  # type: ignore[no-untyped-call]
    ),
}


@dataclass
class MoveWork:
    """What the moves of one player took in the trial step, with what was computed to make them."""

    moves: int
    rows: dict[str, int]  # by network
    multiply_adds: int
    forward: dict[str, int] = field(default_factory=dict)  # multiply-adds of a row, by network


Work = Mapping[str, MoveWork]  # by player; empty: not known


def measure(model: GenerativeModel, data: ImageData) -> Work:
    """Try a step on zeros without moving anybody, and count what it takes.

    Raises UserMistake where the model's step is none, or its networks do not fit the data.
    """
    players = model.players()
    if not players:
        return {}
    shape = (data.channels, data.image_size, data.image_size)
    images = torch.zeros(IMAGES * model.discriminator_steps, *shape)
    try:
        with evaluating(model), torch.enable_grad():  # a penalty differentiates
            work = _tried(model, images)
    except RuntimeError as error:
        if is_out_of_memory(error):  # training will say what to do
            return {}
        raise misfit(data, error) from error
    finally:
        for p in model.parameters():
            p.grad = None
    check_counted(model)
    return work


def forward_multiply_adds(work: Work) -> dict[str, int]:
    """Multiply-adds of each network for one latent or image, forward alone; empty if not known."""
    found: dict[str, int] = {}
    for own in work.values():
        found |= {name: max(n, found.get(name, 0)) for name, n in own.forward.items()}
    return found


def _tried(model: GenerativeModel, images: Tensor) -> Work:
    """Compute the loss and the gradient of every move of a step."""
    players = model.players()
    moves = model.step(images, *example(model.condition, len(images)))
    check_moves(model, moves)
    work: dict[str, MoveWork] = {}
    last: MoveWork | None = None
    with Flops() as flops, _rows_of(model, flops) as rows:
        before = 0
        for move in moves:
            check_move(model, move)
            own = {id(p) for p in players[move.player].parameters()}
            every = [p for player in players.values() for p in player.parameters()]
            with frozen([p for p in every if p.requires_grad and id(p) not in own]):
                value = move.loss()
                if not _descends(value):
                    return {}
            last = work.setdefault(move.player, MoveWork(0, {}, 0))
            last.moves += 1
            before = _take(last, rows, flops, before)
        if last is not None:  # what follows the last move
            _take(last, rows, flops, before)
    return work


def _descends(value: Tensor) -> bool:
    """Compute a gradient; False where there is none, of which training will complain by itself."""
    if not isinstance(value, Tensor):
        return False
    try:
        torch.autograd.backward(value)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return False
    return True


def _take(work: MoveWork, rows: "_Rows", flops: "Flops", before: int) -> int:
    """Add what was counted since the last call; `before` and the return value are all flops."""
    for name, (count, forward) in rows.take().items():
        work.rows[name] = work.rows.get(name, 0) + count
        work.forward[name] = max(forward, work.forward.get(name, 0))
    work.multiply_adds += (flops.total - before) // 2
    return flops.total


class Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by PyTorch's own formulas, as its FlopCounterMode does; fused attention on a CPU too.

    That one also follows modules by hooks on gradients, with which no penalty can be differentiated.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # PyTorch's name
        """Run an operation, and add what it takes."""
        done = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        formula = flop_registry.get(packet, _ATTENTION.get(packet))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=done)
        return done


# --- rows ---------------------------------------------------------------------------------------
@dataclass
class _Calls:
    """Calls of a module from outside of its network."""

    rows: int = 0
    flops: int = 0


class _Rows:
    """Counts the rows that enter networks from outside of them, and the flops until they leave.

    A network may be entered by its own call or through some of its modules, as
    `discriminator.features(images)` does: of these the one with most rows counts.
    """

    def __init__(self, networks: Mapping[str, nn.Module], flops: Flops) -> None:
        self.networks, self._flops = networks, flops
        self._depth = dict.fromkeys(networks, 0)
        self._entered: dict[str, dict[nn.Module, _Calls]] = {name: {} for name in networks}
        self._inside: dict[str, _Calls] = {}  # what the present call is counted in, by network
        self._homes: dict[nn.Module, list[str]] = {}
        for name, network in networks.items():
            for module in network.modules():
                self._homes.setdefault(module, []).append(name)

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is called."""
        homes = self._homes[module]
        inside = [name for name in homes if self._depth[name]]
        for name in homes:
            # a module that two networks share belongs to the one that calls it
            if not self._depth[name] and (module is self.networks[name] or not inside):
                calls = self._entered[name].setdefault(module, _Calls())
                calls.rows += _length((args, kwargs))
                calls.flops -= self._flops.total
                self._inside[name] = calls
                inside = inside or [name]
            self._depth[name] += 1

    def end(self, module: nn.Module, *_: Any) -> None:
        """Its call is over, or failed."""
        for name in self._homes[module]:
            self._depth[name] -= 1
            if not self._depth[name] and (calls := self._inside.pop(name, None)):
                calls.flops += self._flops.total

    def take(self) -> dict[str, tuple[int, int]]:
        """Rows since the last call, and multiply-adds of one, of the networks that had any."""
        found = {}
        for name, entered in self._entered.items():
            whole = entered.pop(self.networks[name], _Calls())
            parts = max((calls.rows for calls in entered.values()), default=0)
            if whole.rows:  # calls of modules leave out some of a network
                found[name] = whole.rows + parts, whole.flops // (2 * whole.rows)
            elif parts:
                flops = sum(calls.flops for calls in entered.values())
                found[name] = parts, flops // (2 * parts)
            entered.clear()
        return found


@contextmanager
def _rows_of(model: GenerativeModel, flops: Flops) -> Iterator[_Rows]:
    """Count the rows through a model's networks, those of its children that have parameters."""
    decoder = getattr(model, "decoder", None)
    networks = {n: m for n, m in model.named_children() if any(True for _ in m.parameters())}
    if decoder is not None:  # whatever a model calls it, or where it keeps it
        networks = {n: m for n, m in networks.items() if m is not decoder} | {"decoder": decoder}
    rows = _Rows(networks, flops)
    modules = {module for network in networks.values() for module in network.modules()}
    hooks = [m.register_forward_pre_hook(rows.begin, with_kwargs=True) for m in modules]
    hooks += [m.register_forward_hook(rows.end, always_call=True) for m in modules]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _length(inputs: Any) -> int:
    """Rows of the first tensor in nested arguments; 0 where there is none."""
    if isinstance(inputs, Tensor):
        return len(inputs) if inputs.ndim else 0
    if isinstance(inputs, Mapping):
        inputs = list(inputs.values())
    if isinstance(inputs, list | tuple):
        return next((n for one in inputs if (n := _length(one))), 0)
    return 0


# --- a run --------------------------------------------------------------------------------------
class Tally:
    """What a run has done so far, over all ranks and all pieces of a resumed run."""

    def __init__(self, players: Iterable[str], work: Work, batch_size: int) -> None:
        self.work, self.batch_size = work, batch_size
        self.moves = dict.fromkeys(players, 0)  # by player
        self.real_images = 0  # training images that steps were given, each time that one was
        # what was done before a checkpoint, as it was counted then, and the moves until there
        self._rows: dict[str, int] | None = {}
        self._multiply_adds: int | None = 0
        self._since: Mapping[str, int] = {}

    def add(self, moves: Mapping[str, int], real_images: int) -> None:
        """Count a step."""
        for player, count in moves.items():
            self.moves[player] += count
        self.real_images += real_images

    @property
    def rows(self) -> dict[str, int] | None:
        """Rows through each network, forward; None where the trial step did not show it."""
        made = self._made()
        if made is None or self._rows is None:
            return None
        rows = dict(self._rows)
        for player, count in made.items():
            own = self.work[player]
            for name, seen in own.rows.items():
                rows[name] = rows.get(name, 0) + self._scaled(seen, count, own)
        return rows

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds, forward and backward; None where the trial step did not show them."""
        made = self._made()
        if made is None or self._multiply_adds is None:
            return None
        own = [(self.work[player], count) for player, count in made.items()]
        return self._multiply_adds + sum(self._scaled(w.multiply_adds, n, w) for w, n in own)

    def _made(self) -> dict[str, int] | None:
        """Moves since the checkpoint; None where some are of a player that did not move in the trial."""
        made = {name: count - self._since.get(name, 0) for name, count in self.moves.items()}
        made = {name: count for name, count in made.items() if count}
        return made if made.keys() <= self.work.keys() else None

    def _scaled(self, counted: int, moves: int, own: MoveWork) -> int:
        return counted * moves * self.batch_size // (own.moves * IMAGES)

    def card(self) -> dict[str, Any]:
        """For the record; None stands for what is not known."""
        rows = self.rows
        return {
            "real_images": self.real_images,
            "decoder_rows": None if rows is None else rows.get("decoder", 0),
            "rows": rows,
            "multiply_adds": self.multiply_adds,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything counted so far, as plain types."""
        return {
            "moves": dict(self.moves),
            "real_images": self.real_images,
            "rows": self.rows,
            "multiply_adds": self.multiply_adds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; an older checkpoint holds moves and real images alone."""
        self.moves, self.real_images = dict(state["moves"]), state["real_images"]
        if "rows" in state:
            self._rows, self._multiply_adds = state["rows"], state["multiply_adds"]
            self._since = dict(self.moves)
