"""A mixture of Gaussians: ex-post density estimation, Ghosh et al. 2020, https://arxiv.org/abs/1903.12436."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.errors import UserMistake
from genbench.priors.contract import CannotBeFitted, Prior, one_thread
from genbench.ranges import number, whole
from genbench.runs.files import first_line

HELD_OUT = 0.1  # share of the codes, of images of their own, that choose the number of components


class Mixture(Prior):
    """Scikit-learn's mixture with full covariances.

    `components` is their number, or several numbers, of which the one with the highest likelihood of
    held-out codes is taken. `regularisation` is added to the diagonal of each covariance, `rounds` is the
    most of EM.
    """

    kind = "mixture"

    def __init__(
        self,
        components: int | Sequence[int],
        codes: int = 20_000,
        seed: int = 0,
        regularisation: float = 1e-6,
        rounds: int = 100,
    ) -> None:
        super().__init__(codes, seed)
        tried = [components] if isinstance(components, int) else [*components]
        for count in tried:
            whole("prior.mixture.components", count)
        whole("the number of prior.mixture.components", len(tried))
        number("prior.mixture.regularisation", regularisation)
        whole("prior.mixture.rounds", rounds)
        self.components, self.regularisation, self.rounds = tried, regularisation, rounds

    @property
    def settings(self) -> Mapping[str, Any]:
        """The numbers of components that are tried, and the bounds of the fit."""
        only = len(self.components) == 1
        return {
            "components": self.components[0] if only else list(self.components),
            "regularisation": self.regularisation,
            "rounds": self.rounds,
        }

    def check(self, codes: int) -> None:
        """Refuse more components than codes that they are fitted to."""
        there = codes - _held_out(codes)
        if max(self.components) > there:
            raise UserMistake(
                f"prior.mixture.components={max(self.components)} is more than the {there} codes that the "
                "mixture is fitted to: choose fewer, or raise prior.mixture.codes"
            )

    def fit(self, codes: Tensor, generator: torch.Generator) -> None:
        """Fit to all but the last tenth of the codes, which choose the number of components."""
        self.check(len(codes))
        split = len(codes) - _held_out(len(codes))
        data = codes.double().numpy()
        held_out: dict[str, float] = {}
        best = None
        for count in self.components:
            seed = int(torch.randint(2**31, (1,), generator=generator))
            fitted = self._fitted(data[:split], count, seed)
            held_out[str(count)] = float(fitted.score(data[split:]))
            if best is None or held_out[str(count)] > held_out[str(best.n_components)]:
                best = fitted
        assert best is not None
        covariances = torch.from_numpy(best.covariances_)
        self.tensors = {
            "weights": torch.from_numpy(best.weights_),
            "means": torch.from_numpy(best.means_),
            "scales": torch.linalg.cholesky(covariances).contiguous(),
        }
        self.found = {
            "components": int(best.n_components),
            "held_out_nats": held_out,
            "converged": bool(best.converged_),
        }

    def _fitted(self, data: Any, count: int, seed: int) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(
            count,
            covariance_type="full",
            random_state=seed,
            reg_covar=self.regularisation,
            max_iter=self.rounds,
        )
        with one_thread(), warnings.catch_warnings():
            # the card says whether it converged
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                return mixture.fit(data)
            except ValueError as error:  # a covariance is singular
                raise CannotBeFitted(
                    f"prior=mixture of {count} cannot be fitted to these codes ({first_line(error)}): raise "
                    "prior.mixture.regularisation, or choose fewer components"
                ) from error

    @property
    def parameters(self) -> int:
        """Free ones: weights that sum to 1, means, and one half of each covariance."""
        count, dimensions = self.fitted["means"].shape
        return count - 1 + count * dimensions + count * dimensions * (dimensions + 1) // 2

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw a component for each latent, then the latent."""
        weights, means, scales = (self.fitted[name] for name in ("weights", "means", "scales"))
        where = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, means.shape[1], generator=generator, dtype=torch.float64)
        with one_thread():
            moved = torch.empty_like(noise)
            for component in range(len(weights)):
                own = where == component
                moved[own] = means[component] + noise[own] @ scales[component].T
        return moved.float()

    def log_prob(self, z: Tensor) -> Tensor:
        """Log of the weighted sum of the components' densities."""
        weights, means, scales = (
            self.fitted[name].to(z.device) for name in ("weights", "means", "scales")
        )
        apart = z.double()[:, None] - means
        white = torch.linalg.solve_triangular(scales, apart.movedim(0, -1), upper=False)
        volume = scales.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = 0.5 * means.shape[1] * math.log(2 * math.pi)
        each = -0.5 * white.square().sum(1) + (weights.log() - volume - constant)[:, None]
        return torch.logsumexp(each, 0)


def _held_out(codes: int) -> int:
    return max(1, round(HELD_OUT * codes))
