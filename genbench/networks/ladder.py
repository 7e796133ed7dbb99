"""Groups of latents, each given those above it: the prior and the encoder of a ladder."""

import torch
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.networks.heads import Trunk, bent
from genbench.ranges import whole


def group_sizes(latent_dim: int, groups: int) -> list[int]:
    """Sizes of the groups, top first, as equal as can be. Raises UserMistake for more groups than latents."""
    whole("model.groups", groups)
    if groups > latent_dim:
        raise UserMistake(
            f"model.groups={groups} cannot share arena.latent_dim={latent_dim}: choose {latent_dim} or fewer"
        )
    return [len(part) for part in torch.arange(latent_dim).tensor_split(groups)]


class LadderPrior(nn.Module):
    """p(z) = p(z_1) p(z_2 | z_1) ...: N(0, I), then Gaussians whose mean and variance those above give.

    A draw is a function of noise: z_g = mu_g(z_1 .. z_(g-1)) + sigma_g(z_1 .. z_(g-1)) eps_g. At first it is
    the noise itself.
    """

    def __init__(self, latent_dim: int, groups: int, width: int) -> None:
        super().__init__()
        whole("prior.width", width)
        self.sizes = group_sizes(latent_dim, groups)
        self.layers = nn.ModuleList()
        for number, size in enumerate(self.sizes[1:], 1):
            last = nn.Linear(width, 2 * size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            above = sum(self.sizes[:number])
            self.layers.append(nn.Sequential(nn.Linear(above, width), nn.ReLU(), last))

    def group(self, above: Tensor, eps: Tensor) -> Tensor:
        """The next group (N, d_g) for its noise, given the groups above it (N, d_1 + ... + d_(g-1))."""
        if not above.shape[1]:
            return eps
        number = next(n for n, _ in enumerate(self.sizes) if sum(self.sizes[:n]) == above.shape[1])
        mu, logvar = self.layers[number - 1](above).float().chunk(2, 1)
        z: Tensor = mu + eps * (0.5 * bent(logvar)).exp()
        return z

    def forward(self, eps: Tensor) -> Tensor:
        """All groups side by side, (N, latent_dim), for noise (N, latent_dim)."""
        z = eps[:, :0]
        for own in torch.split(eps, self.sizes, 1):
            z = torch.cat([z, self.group(z, own)], 1)
        return z


class LadderEncoder(nn.Module):
    """Images, and the groups above, to mean and log variance of a group's noise.

    q(z_g | z_1 .. z_(g-1), x) is said relative to the prior's, as in NVAE (Vahdat and Kautz 2020,
    https://arxiv.org/abs/2007.03898, section 3.2): z_g = mu_g + sigma_g eps_g with eps_g from N(m, s^2).
    """

    def __init__(self, trunk: Trunk, latent_dim: int, groups: int, width: int) -> None:
        super().__init__()
        whole("encoder.width", width)
        self.trunk, self.head = trunk, trunk.head(width)
        self.sizes = group_sizes(latent_dim, groups)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width + sum(self.sizes[:number]), width),
                nn.ReLU(),
                nn.Linear(width, 2 * size),
            )
            for number, size in enumerate(self.sizes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to what all groups see of them, (N, width)."""
        seen: Tensor = self.head(self.trunk(images))
        return seen

    def group(self, number: int, seen: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the noise of group `number`, from 0: (N, d_g) each, in float32."""
        mu, logvar = self.layers[number](torch.cat([seen, above], 1)).float().chunk(2, 1)
        return mu, bent(logvar)
