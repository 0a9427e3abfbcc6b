from __future__ import annotations

import torch

from fastvla_core.models.statistics import MeanStd, mean_std


def test_normalising_there_and_back_gives_the_same():
    values = MeanStd(torch.randn(4, 3), torch.rand(4, 3) + 0.1)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(values.unnormalize(values.normalize(x)), x)


def test_statistics_are_per_chunk_step_and_dimension():
    samples = torch.randn(5_000, 4, 3) * torch.arange(1, 5)[:, None] + torch.arange(3)
    found = mean_std(samples)
    normal = found.normalize(samples)
    assert found.mean.shape == (4, 3)
    torch.testing.assert_close(normal.mean(0), torch.zeros(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(0, unbiased=False), torch.ones(4, 3), atol=1e-5, rtol=0)


def test_a_joint_that_never_moved_is_not_blown_up():
    found = mean_std(torch.full((10, 2), 0.5))
    assert float(found.normalize(torch.tensor([0.501, 0.5])).abs().max()) < 1.5
