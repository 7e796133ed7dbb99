"""A prior over codes: each given those before it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.ranges import whole


class _Masked(nn.Linear):
    """A linear layer of which `mask`, (outputs, inputs), leaves out some weights."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)


class MaskedPrior(nn.Module):
    """p(k_1, ..., k_T) = prod p(k_t | k_1, ..., k_(t-1)) by one masked network: MADE, Germain et al. 2015.

    https://arxiv.org/abs/1502.03509. Codes are integers (N, T) of 0 .. K - 1; two hidden layers, of whose
    units the m-th depends on the first 1 + m mod (T - 1) codes. With a `context` of so many numbers every code
    depends on these too, by linear maps to the first hidden layer and to the logits: the first code knows no unit.
    """

    def __init__(self, tokens: int, codes: int, width: int, context: int = 0) -> None:
        super().__init__()
        whole("prior.tokens", tokens)
        whole("prior.codes", codes, 2)
        whole("prior.width", width)
        self.tokens, self.codes = tokens, codes
        inputs = torch.arange(tokens).repeat_interleave(codes) + 1
        hidden = torch.arange(width) % max(1, tokens - 1) + 1
        self.layers = nn.Sequential(
            _Masked(hidden[:, None] >= inputs),
            nn.ReLU(),
            _Masked(hidden[:, None] >= hidden),
            nn.ReLU(),
            _Masked(inputs[:, None] > hidden),
        )
        if context:
            self.to_hidden = nn.Linear(context, width, bias=False)
            self.to_logits = nn.Linear(context, len(inputs), bias=False)

    def logits(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Of each code given those before it: (N, T, K) in float32, for codes (N, T) and a context (N, C)."""
        every = torch.arange(self.codes, device=codes.device)
        one_hot = (codes[..., None] == every).float().flatten(1)
        if context is None:
            logits: Tensor = self.layers(one_hot).float()
        else:
            hidden = self.layers[0](one_hot) + self.to_hidden(context)
            logits = self.layers[1:](hidden).float() + self.to_logits(context).float()
        return logits.view(codes.shape[0], self.tokens, self.codes)

    def forward(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(codes) in nats, (N,), for codes (N, T) and a context (N, C)."""
        log_p = self.logits(codes, context).log_softmax(2)
        return log_p.gather(2, codes[..., None]).squeeze(2).sum(1)

    @torch.no_grad()
    def draw(self, uniform: Tensor, context: Tensor | None = None) -> Tensor:
        """Codes (N, T) by the inverse CDF of one after the other at `uniform` (N, T) in (0, 1)."""
        codes = torch.zeros_like(uniform, dtype=torch.long)
        for token in range(self.tokens):
            cdf = self.logits(codes, context)[:, token].softmax(1).cumsum(1)
            below = (cdf < uniform[:, token, None]).sum(1)
            codes[:, token] = below.clamp(max=self.codes - 1)
        return codes
