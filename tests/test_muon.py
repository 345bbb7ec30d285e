from copy import deepcopy

import pytest
import torch
from torch import nn

from lightning_ddpm.training.muon import Muon, matrices, orthogonalised


def test_orthogonalised_has_the_same_singular_vectors_and_values_near_one() -> None:
    # Oracle: the singular value decomposition.
    shapes = [(16, 16), (16, 144), (16, 144), (64, 8), (10, 1)]
    matrices = [torch.randn(shape) for shape in shapes]
    for matrix, result in zip(matrices, orthogonalised(matrices), strict=True):
        u, _, v = torch.linalg.svd(matrix.double(), full_matrices=False)
        diagonal = u.mT @ result.double() @ v.mT
        values = diagonal.diagonal()
        assert values.min() > 0.3
        assert values.max() < 1.3
        torch.testing.assert_close(diagonal, torch.diag(values), atol=1e-4, rtol=0)


def test_orthogonalised_is_muons_iteration_of_the_matrix_itself() -> None:
    # Oracle: the iteration as Muon's authors write it, in float64, for badly conditioned matrices.
    matrices = [torch.randn(24, 200) * torch.logspace(0, -3, 24)[:, None] for _ in range(3)]
    for matrix, result in zip(matrices, orthogonalised(matrices), strict=True):
        x = matrix.double() / matrix.double().norm()
        for _ in range(5):
            square = x @ x.mT
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        torch.testing.assert_close(result.double(), x, atol=1e-3, rtol=1e-3)


def names_of_matrices(module: nn.Module) -> set[str]:
    ids = {id(matrix) for matrix in matrices(module)}
    return {name for name, p in module.named_parameters() if id(p) in ids}


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d])
def test_matrices_are_told_by_their_shape(conv: type[nn.Module]) -> None:
    module = nn.ModuleDict(
        {
            "table": nn.Embedding(50, 16),
            "attention": nn.MultiheadAttention(16, 4),
            "apart": nn.MultiheadAttention(16, 4, kdim=8, vdim=8),
            "filters": conv(16, 32, 3),
            "linear": nn.Linear(16, 32),
            "norm": nn.GroupNorm(1, 16),
        }
    )
    attention = {"attention.in_proj_weight", "attention.out_proj.weight", "apart.out_proj.weight"}
    attention |= {f"apart.{name}_proj_weight" for name in "qkv"}
    assert names_of_matrices(module) == {*attention, "filters.weight", "linear.weight"}


def test_a_table_that_is_shared_is_no_matrix() -> None:
    table, head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
    head.weight = table.weight
    for layers in ((table, head), (head, table)):
        assert names_of_matrices(nn.Sequential(*layers)) == set()


def gradients(model: nn.Module, steps: int) -> list[list[torch.Tensor]]:
    torch.manual_seed(1)
    return [[torch.randn_like(p) for p in model.parameters()] for _ in range(steps)]


def test_what_is_no_matrix_goes_by_adam() -> None:
    # Oracle: torch.optim.Adam.
    ours, theirs = nn.GroupNorm(2, 8), nn.GroupNorm(2, 8)
    optimizers = (Muon(ours, 0.01), torch.optim.Adam(theirs.parameters(), 0.01, betas=(0.9, 0.99)))
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for step in gradients(model, 5):
            for p, grad in zip(model.parameters(), step, strict=True):
                p.grad = grad
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_matrices_move_by_the_orthogonalised_momentum() -> None:
    # Oracle: Nesterov's momentum written out, and the polar factor from the decomposition.
    layer = nn.Conv2d(8, 12, 3, bias=False)
    start, steps = layer.weight.detach().clone(), gradients(layer, 3)
    optimizer = Muon(layer, 0.01, momentum=0.9)
    momentum, expected = torch.zeros(12, 72), start.flatten(1)
    for (grad,) in steps:
        layer.weight.grad = grad
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * grad.flatten(1)
        u, _, v = torch.linalg.svd(0.1 * grad.flatten(1) + 0.9 * momentum, full_matrices=False)
        expected = expected - 0.01 * 0.2 * 72**0.5 * u @ v
    start = start.flatten(1)
    moved, planned = layer.weight.detach().flatten(1) - start, expected - start
    cosine = torch.cosine_similarity(moved.flatten(), planned.flatten(), dim=0)
    assert cosine > 0.97  # the iteration's singular values are only near 1
    assert moved.norm() == pytest.approx(planned.norm().item(), rel=0.2)


def test_state_survives_a_checkpoint() -> None:
    def run(layer: nn.Module, optimizer: Muon, steps: list) -> None:
        for step in steps:
            for p, grad in zip(layer.parameters(), step, strict=True):
                p.grad = grad
            optimizer.step()

    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Embedding(3, 4))
    steps = gradients(model, 6)
    start = deepcopy(model.state_dict())
    run(model, optimizer := Muon(model, 0.01), steps[:3])
    saved, middle = deepcopy(optimizer.state_dict()), deepcopy(model.state_dict())
    run(model, optimizer, steps[3:])
    end = deepcopy(model.state_dict())
    model.load_state_dict(middle)
    again = Muon(model, 0.01)
    again.load_state_dict(saved)
    run(model, again, steps[3:])
    assert all(torch.equal(end[name], value) for name, value in model.state_dict().items())
    assert not any(torch.equal(end[name], value) for name, value in start.items())
