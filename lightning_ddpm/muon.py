"""Muon: momentum whose updates are orthogonalised (Jordan et al. 2024, kellerjordan.github.io)."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Matrices = Float[Tensor, "n rows columns"]


class Muon(torch.optim.Optimizer):
    """Muon for convolutions and linear layers, and Adam for all other parameters.

    Filters are flattened to matrices. An orthogonalised update is scaled to the root mean square
    that Adam's updates have, 0.2 (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that both share one
    learning rate.

    Args:
        module: what is trained.
        lr: the learning rate.
        momentum: of the matrices, with Nesterov's correction.
        betas: of Adam.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        matrices = [layer.weight for layer in layers]
        ids = {id(matrix) for matrix in matrices}
        others = [p for p in module.parameters() if id(p) not in ids]
        groups = [
            {"params": matrices, "momentum": momentum, "betas": None},
            {"params": others, "momentum": None, "betas": betas},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["betas"] is None:
                self.step_matrices(parameters, group["lr"], group["momentum"])
            else:
                self.step_others(parameters, group["lr"], group["betas"])
        return loss

    def step_matrices(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        """Orthogonalise the momentum of matrices, all of one shape at once."""
        shapes = defaultdict(list)
        for p in parameters:
            shapes[p.flatten(1).shape].append(p)
        for (rows, columns), same in shapes.items():
            updates = []
            for p in same:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - momentum)
                updates.append(p.grad.lerp(state["momentum"], momentum).flatten(1))
            scale = 0.2 * max(rows, columns) ** 0.5
            for p, update in zip(same, orthogonalised(torch.stack(updates)), strict=True):
                p.add_(update.view(p.shape), alpha=-lr * scale)

    def step_others(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]
    ) -> None:
        """Adam (Kingma and Ba 2014, arXiv 1412.6980, algorithm 1)."""
        for p in parameters:
            state, grad = self.state[p], p.grad
            assert grad is not None
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            state["step"] += 1
            state["mean"].lerp_(grad, 1 - betas[0])
            state["square"].lerp_(grad.square(), 1 - betas[1])
            mean = state["mean"] / (1 - betas[0] ** state["step"])
            square = state["square"] / (1 - betas[1] ** state["step"])
            p.addcdiv_(mean, square.sqrt().add_(1e-8), value=-lr)


def orthogonalised(matrices: Matrices, iterations: int = 5) -> Matrices:
    """Bring all singular values near 1, keeping the singular vectors: U S V' becomes about U V'.

    A Newton-Schulz iteration with the quintic polynomial of Muon's authors, which lifts small
    singular values fast and leaves most between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
