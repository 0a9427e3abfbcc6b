"""The token table that stays in the host's memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.errors import PolicyError
from fastvla_core.models.describe import describe
from fastvla_core.models.token_table import HostEmbedding
from fastvla_core.policy import FastVLA

from .checkpoints import copied, positions


@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_it_changes_no_action_and_nothing_that_is_saved(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    whole = FastVLA.from_pretrained(folder)
    kept = FastVLA.from_pretrained(folder, token_table="host")
    assert np.array_equal(positions(whole), positions(kept))
    assert kept.model.state_dict().keys() == whole.model.state_dict().keys()
    kept.save_pretrained(tmp_path / "again")
    again = FastVLA.from_pretrained(tmp_path / "again")
    assert np.array_equal(positions(whole), positions(again))


@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_a_prompt_in_static_buffers_gives_the_same_actions(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    whole = FastVLA.from_pretrained(folder, engine="static")
    kept = FastVLA.from_pretrained(folder, token_table="host", engine="static")
    assert np.array_equal(positions(whole), positions(kept))


def test_only_the_table_stays_when_the_policy_moves(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    # "meta" stands for any other device: what moves there can be told from what does not.
    kept = FastVLA.from_pretrained(
        folder, token_table="host", device="meta", dtype=torch.bfloat16, quantization="nf4"
    )
    ((name, table),) = ((n, p) for n, p in kept.model.named_parameters() if p.device.type == "cpu")
    assert kept.device.type == "meta"
    assert isinstance(kept.model.get_submodule(name.removesuffix(".weight")), HostEmbedding)
    assert table.dtype == torch.bfloat16
    told = describe(str(folder))["of it the token table"]
    assert told.startswith(f"{2 * table.numel() / 1e6:.1f} MB in bf16")


def test_a_policy_that_cannot_leave_it_there_says_so():
    with pytest.raises(PolicyError, match="cannot leave its token table"):
        FastVLA.from_pretrained("nano", token_table="host")
