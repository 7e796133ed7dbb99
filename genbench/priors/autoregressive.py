"""p(k_1) p(k_2 | k_1) ... over the tokens of a quantised autoencoder: the second stage of VQ-VAE in small.

Van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 3.3: fitted after the autoencoder, to its
codes of training images. The network is a masked one (Germain et al. 2015) in place of a PixelCNN.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.errors import UserMistake
from genbench.networks.autoregressive import MaskedPrior
from genbench.priors.contract import CannotBeFitted, Prior, one_thread
from genbench.ranges import number, whole

HELD_OUT = 10  # one code of so many chooses the step
LOOKS = 40  # at the held-out codes
AT_ONCE = 4_096  # codes


class Autoregressive(Prior):
    """A masked network of one token after the other.

    Trained for at most `steps` batches of `batch_size` codes by Adam at `lr`. It is what it was at that step,
    of forty, at which a tenth of the codes that it was not trained on were most likely: a small dataset has
    fewer codes than the network parameters.
    """

    kind = "autoregressive"
    needs_tokens = True

    def __init__(
        self,
        codes: int = 20_000,
        seed: int = 0,
        width: int = 256,
        steps: int = 2_000,
        batch_size: int = 256,
        lr: float = 1e-3,
    ) -> None:
        super().__init__(codes, seed)
        for name, value in {"width": width, "steps": steps, "batch_size": batch_size}.items():
            whole(f"prior.autoregressive.{name}", value)
        number("prior.autoregressive.lr", lr, above=True)
        self.width, self.steps, self.batch_size, self.lr = width, steps, batch_size, lr

    @property
    def settings(self) -> Mapping[str, Any]:
        """Network and training."""
        return {
            "width": self.width,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lr": self.lr,
        }

    @property
    def parameters(self) -> int:
        """Numbers that the fit has found: not the alphabet, which is the model's."""
        return super().parameters - self.fitted["alphabet"].numel()

    def fit(self, codes: Tensor, generator: torch.Generator) -> None:
        """Fit to latents (N, d), whose tokens are told by the model's `alphabet` (K, d / T)."""
        if self.alphabet is None:
            raise UserMistake("the autoregressive prior needs the alphabet of a model's tokens")
        if len(codes) < 2:
            raise CannotBeFitted("prior=autoregressive cannot be fitted to a single code")
        tokens = numbers_of(codes, self.alphabet)
        held = max(1, len(tokens) // HELD_OUT)
        with (
            torch.random.fork_rng([]),
            torch.inference_mode(False),
            torch.enable_grad(),
            one_thread(),
        ):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            network = MaskedPrior(tokens.shape[1], len(self.alphabet), self.width)
            self._train(network, tokens[held:].clone(), tokens[:held].clone(), generator)
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.tensors = {"alphabet": self.alphabet.detach().float().cpu().clone(), **state}

    def _train(
        self, network: MaskedPrior, tokens: Tensor, held: Tensor, generator: torch.Generator
    ) -> None:
        """Leave the network as it was at its best look at the `held` tokens."""
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr, fused=True)
        best, every = (float("inf"), 0, network.state_dict()), max(1, self.steps // LOOKS)
        for step in range(self.steps + 1):
            if step % every == 0 or step == self.steps:
                with torch.no_grad():
                    rate = -float(network(held).double().mean())
                if rate < best[0]:
                    best = rate, step, copy.deepcopy(network.state_dict())
            chosen = torch.randint(len(tokens), (self.batch_size,), generator=generator)
            loss = -network(tokens[chosen]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.load_state_dict(best[2])
        self.found = {"step": best[1], "held_out_rate": round(best[0], 4)}

    def log_p(self, tokens: Tensor) -> Tensor:
        """log p(tokens) in nats, (N,), of numbers (N, T) on any device."""
        with torch.no_grad(), one_thread():
            found: Tensor = self._network(tokens.shape[1])(tokens.cpu())
        return found.to(tokens.device)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw one token after the other, and spell them."""
        alphabet = self.fitted["alphabet"]
        last = self.fitted["layers.4.bias"]
        tokens = len(last) // len(alphabet)
        network = self._network(tokens)
        uniform = torch.rand(n, tokens, generator=generator)
        with one_thread():
            drawn = torch.cat([network.draw(part) for part in torch.split(uniform, AT_ONCE)])
        return alphabet[drawn].flatten(1)

    def _network(self, tokens: int) -> MaskedPrior:
        network = MaskedPrior(tokens, len(self.fitted["alphabet"]), self.width)
        network.load_state_dict({k: v for k, v in self.fitted.items() if k != "alphabet"})
        return network


def numbers_of(codes: Tensor, alphabet: Tensor) -> Tensor:
    """Numbers (N, T) of the tokens that spell latents (N, d): the nearest ones of (K, d / T)."""
    letters = alphabet.detach().float().cpu()
    parts = codes.float().view(len(codes), -1, letters.shape[1])
    return torch.cat(
        [
            (part[:, :, None] - letters).square().sum(3).argmin(2)
            for part in torch.split(parts, AT_ONCE)
        ]
    )
