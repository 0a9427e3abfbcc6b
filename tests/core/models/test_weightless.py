"""Networks without weights: no memory, no random numbers, no slow import."""

import subprocess
import sys

import torch
from torch import nn

from fastvla_core.models.weightless import weightless, weightless_copy


def test_layers_have_shapes_and_no_memory():
    with weightless():
        layers = [nn.Embedding(7, 3), nn.Linear(3, 5), nn.Conv2d(3, 4, 3), nn.LayerNorm(5)]
        weight = nn.init.trunc_normal_(torch.empty(2, 3))
    assert weight.shape == (2, 3)
    for parameter in (p for layer in layers for p in layer.parameters()):
        assert parameter.is_meta
    assert layers[0].weight.shape == (7, 3)


def test_a_copy_without_weights_takes_those_of_a_state():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network[0].weight.requires_grad_(False)
    network.add_module("same", network[0])
    copy = weightless_copy(network)
    assert all(tensor.is_meta for tensor in copy.state_dict().values())
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert copy[0] is copy.same
    assert (copy[0].weight.requires_grad, copy[0].bias.requires_grad) == (False, True)
    copy.load_state_dict(network.state_dict(), assign=True)
    x = torch.ones(2, 3)
    assert torch.equal(copy.eval()(x), network.eval()(x))


def test_outside_numbers_are_drawn_as_ever():
    with weightless():
        pass
    assert nn.Embedding(7, 3).weight.std() > 0


def test_the_shipped_policy_is_loaded_without_the_compiler():
    code = (
        "import sys\n"
        "from fastvla_core.policy import FastVLA\n"
        "FastVLA.from_pretrained('nano')\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
