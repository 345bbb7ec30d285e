"""Muon: momentum whose updates are orthogonalised (Jordan et al. 2024, kellerjordan.github.io)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adam import adam

Matrix = Float[Tensor, "_ _"]
Squares = Float[Tensor, "n r r"]


class Muon(torch.optim.Optimizer):
    """Muon for weights that are ``matrices``, and Adam for all other parameters.

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
        hidden = matrices(module)
        ids = {id(matrix) for matrix in hidden}
        others = [p for p in module.parameters() if id(p) not in ids]
        groups = [
            {"params": hidden, "momentum": momentum, "betas": None},
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

    def step_matrices(self, parameters: list[Tensor], lr: float, momentum: float) -> None:
        """Go in the direction of the orthogonalised momentum."""
        momenta, updates = self.state_of(parameters, "momentum"), []
        for grad, average in zip(gradients(parameters), momenta, strict=True):
            average.lerp_(grad, 1 - momentum)
            updates.append(grad.lerp(average, momentum).flatten(1))
        for p, update in zip(parameters, orthogonalised(updates), strict=True):
            p.add_(update.reshape(p.shape), alpha=-lr * 0.2 * max(update.shape) ** 0.5)

    def step_others(self, parameters: list[Tensor], lr: float, betas: tuple[float, float]) -> None:
        """Adam (Kingma and Ba 2014, arXiv 1412.6980, algorithm 1)."""
        adam(
            parameters,
            gradients(parameters),
            self.state_of(parameters, "mean"),
            self.state_of(parameters, "square"),
            [],
            self.state_of(parameters, "steps", scalar=True),
            fused=True,
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state_of(self, parameters: list[Tensor], name: str, scalar: bool = False) -> list[Tensor]:
        """What is remembered of each parameter under ``name``, zero at first."""
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = p.new_zeros(()) if scalar else torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """The weights of a module that map many channels to many: of linear layers, attention, filters.

    Tables of embeddings are none.
    """
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return [p for p in module.parameters() if p.ndim >= 2 and id(p) not in tables]


def gradients(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of parameters that all have one."""
    return [p.grad for p in parameters if p.grad is not None]


def orthogonalised(matrices: Sequence[Matrix]) -> list[Matrix]:
    """Bring all singular values near 1, keeping the singular vectors: U S V' becomes about U V'.

    A Newton-Schulz iteration multiplies a matrix X by polynomials of X X'. These are found from the
    small matrices X X' alone, all of one size at once, and multiplied with X at the end: several
    times less work than to iterate X.
    """
    wide = [m.mT if m.shape[0] > m.shape[1] else m for m in matrices]
    wide = [x / (x.norm() + 1e-7) for x in wide]
    places = defaultdict(list)
    for place, x in enumerate(wide):
        places[len(x)].append(place)
    for same in places.values():
        squares = torch.stack([wide[place] @ wide[place].mT for place in same])
        for place, factor in zip(same, newton_schulz(squares), strict=True):
            wide[place] = factor @ wide[place]
    return [x.mT if m.shape[0] > m.shape[1] else x for m, x in zip(matrices, wide, strict=True)]


def newton_schulz(squares: Squares, iterations: int = 5) -> Squares:
    """About (X X')^(-1/2) for each X X', whose eigenvalues are at most 1.

    With the quintic polynomial of Muon's authors, which lifts small singular values fast and leaves
    most between about 0.7 and 1.2. In float32: errors in X X' grow with each iteration.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    identity = torch.eye(squares.shape[-1], device=squares.device)
    product = identity
    for _ in range(iterations):
        factor = torch.baddbmm(squares, squares, squares, beta=b, alpha=c) + a * identity
        product = factor @ product
        squares = factor @ squares @ factor
    return product
