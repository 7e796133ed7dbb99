"""Loss scaling under 16-mixed: each player has a scale of its own.

Half precision loses small gradients, so a loss is multiplied before its backward and the gradients are
divided afterwards. How large the factor may be is found by trying: an overflow halves it. With one
factor for two players the one that overflows would take range from the other.
"""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.plugins.precision import MixedPrecision


class PlayerScaling(MixedPrecision):
    """Lightning's mixed precision with one gradient scaler per player, made when it first plays.

    `select` says whose backward and step come next; Lightning then finds that player's in `scaler`.
    """

    def __init__(
        self,
        device: str,
        make: Callable[[str], torch.amp.GradScaler] = torch.amp.GradScaler,
    ) -> None:
        super().__init__("16-mixed", device, make(device))
        self._make = make
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self._saved: dict[str, dict[str, Any]] = {}  # by a checkpoint, until they are made

    def select(self, player: str) -> None:
        """Let `scaler` be this player's."""
        if player not in self.scalers:
            self.scalers[player] = self._make(self.device)
            if player in self._saved:
                self.scalers[player].load_state_dict(self._saved[player])
        self.scaler = self.scalers[player]

    def state_dict(self) -> dict[str, Any]:
        """Every player's scale, and how long it has held."""
        return self._saved | {name: scaler.state_dict() for name, scaler in self.scalers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up again."""
        self._saved, self.scalers = dict(state_dict), {}
