"""The focal loss against torchvision's."""

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from lightning_rad.losses.focal import focal


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.7, 1.0), (0.5, 0.0)])
def test_focal_is_torchvisions_in_value_and_gradient(alpha: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(1)
    mine = (4 * torch.randn(64, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    labels = torch.randint(0, 2, (64, 8), generator=generator).double()
    total, known = focal(mine, labels, alpha=alpha, gamma=gamma)
    wanted = sigmoid_focal_loss(theirs, labels, alpha, gamma, reduction="sum")
    assert int(known) == 512
    torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)
    total.backward()
    wanted.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-14)
