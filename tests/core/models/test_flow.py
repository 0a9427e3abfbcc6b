from __future__ import annotations

import torch

from fastvla_core.models.policies.flow_vla import flow


def test_time_one_is_noise_and_time_zero_is_data():
    action, noise = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 4, 3)
    path = flow.interpolate(action.expand(1, 2, 4, 3), noise, torch.tensor([[[0.0], [1.0]]]))
    assert torch.equal(path[0, 0], action[0, 0])
    assert torch.equal(path[0, 1], noise[0, 1])


def test_each_action_step_may_have_a_time_of_its_own():
    action, noise = torch.randn(1, 1, 4, 3), torch.randn(1, 1, 4, 3)
    path = flow.interpolate(action, noise, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]))
    assert torch.equal(path[0, 0, :2], action[0, 0, :2])
    assert torch.equal(path[0, 0, 2:], noise[0, 0, 2:])


def test_velocity_is_the_derivative_of_the_path():
    action, noise = torch.randn(1, 1, 4, 3).double(), torch.randn(1, 1, 4, 3).double()
    before = flow.interpolate(action, noise, torch.tensor([[[0.3]]]).double())
    after = flow.interpolate(action, noise, torch.tensor([[[0.4]]]).double())
    torch.testing.assert_close((after - before) / 0.1, flow.velocity_target(action, noise))


def test_the_exact_velocity_leads_from_noise_to_data_in_any_number_of_steps():
    action, noise = torch.randn(1, 1, 4, 3), torch.randn(1, 1, 4, 3)
    for steps in (1, 5, 10):
        found = flow.integrate(lambda x, t: noise - action, noise, steps=steps)
        torch.testing.assert_close(found, action, atol=1e-5, rtol=0)


def test_integration_visits_the_times_from_one_down():
    seen: list[float] = []

    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        seen.append(time)
        return torch.zeros_like(x)

    flow.integrate(velocity, torch.zeros(1), steps=5)
    assert torch.allclose(torch.tensor(seen), torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2]))


def test_training_times_follow_the_scaled_beta_distribution():
    times = flow.sample_time((20_000,), generator=torch.Generator().manual_seed(0))
    assert float(times.min()) >= 0.001
    assert float(times.max()) <= 1.0
    # Beta(1.5, 1) has mean 0.6 and distribution function x**1.5.
    assert abs(float(times.mean()) - (0.6 * 0.999 + 0.001)) < 0.01
    assert abs(float((times < 0.25 * 0.999 + 0.001).float().mean()) - 0.125) < 0.01
