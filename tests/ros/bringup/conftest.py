import pytest
import torch

from fastvla_core.models.statistics import MeanStd, Statistics
from fastvla_core.models.tokenizer import train_tokenizer
from fastvla_core.policy import FastVLA, policy_config
from fastvla_core.robot.contract_file import load_contract


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A nano policy for the table-top robot with random weights: it sways where it stands."""
    config = policy_config("nano", contract=load_contract("tabletop"), action_dt_s=0.1)
    small = torch.full((config.chunk_size, 7), 0.01)
    policy = FastVLA.from_config(
        config,
        statistics=Statistics(
            state=MeanStd(torch.zeros(7), torch.ones(7)), action=MeanStd(0 * small, small)
        ),
        tokenizer=train_tokenizer(["pick up the red cube"]),
    )
    folder = tmp_path_factory.mktemp("policy") / "random"
    policy.save_pretrained(folder)
    return folder
