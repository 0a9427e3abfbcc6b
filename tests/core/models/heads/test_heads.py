"""Every head: it learns, it reads what it should and nothing else, in fp32 and bf16."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import KeyValue
from fastvla_core.models.heads.bins import from_bins, to_bins
from fastvla_core.models.heads.interface import ActionSizes, BackboneOffer, Context
from fastvla_core.models.heads.ngram_draft import NgramDraft
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer
from fastvla_core.models.registry import ACTION_HEADS

from .contexts import (
    DEPTH,
    HEADS,
    OFFER,
    ROWS,
    SIZES,
    WIDTH,
    context,
    fast_tokenizer,
    make_head,
    random,
)

ATTENTIONS = ("cross", "joint")
every_head = pytest.mark.parametrize("kind", HEADS)
either_attention = pytest.mark.parametrize("attention", ATTENTIONS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FastTokenizer:
    return fast_tokenizer(tmp_path_factory.mktemp("fast"))


def chunk(*, rows: int = ROWS, seed: int = 3) -> Tensor:
    return random(rows, SIZES.steps, SIZES.action, seed=seed).clamp(-2, 2)


def loss(head: Any, given: Context, batch: dict[str, Tensor], *, seed: int = 0) -> Tensor:
    return head.loss(given, batch, generator=torch.Generator().manual_seed(seed))["loss"]


def noise(rows: int = ROWS) -> Tensor:
    return random(rows, SIZES.steps, SIZES.action, seed=9)


def test_every_registered_head_is_tested():
    assert set(ACTION_HEADS.names()) == set(HEADS)


@pytest.mark.parametrize(("kind", "attention"), [*((k, "cross") for k in HEADS), ("flow", "joint")])
def test_it_learns_chunks_that_the_observation_decides(kind, attention, tokenizer):
    head = make_head(kind, attention=attention, tokenizer=tokenizer)
    given, batch = context(), {"action": chunk()}
    optimizer = torch.optim.Adam(head.parameters(), lr=4e-3)
    first = float(loss(head, given, batch).detach())
    for step in range(130):
        optimizer.zero_grad()
        loss(head, given, batch, seed=step).backward()
        optimizer.step()
    last = sum(float(loss(head, given, batch, seed=s).detach()) for s in range(5)) / 5
    assert last < 0.25 * first
    with torch.inference_mode():
        error = (head.actions(given, noise()) - batch["action"]).abs().mean()
    assert error < 0.4 * batch["action"].abs().mean()


@either_attention
@every_head
def test_gradient_reaches_all_weights_and_what_is_read_only(kind, attention, tokenizer):
    head = make_head(kind, attention=attention, layers=(1, -1), tokenizer=tokenizer)
    given = context(requires_grad=True)
    loss(head, given, {"action": chunk()}).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert given.state_bs.grad is not None
    read = {1, DEPTH - 1}
    for layer in range(DEPTH):
        own = given.key_values[layer]
        joint = own.key_bgsd.grad is not None and own.value_bgsd.grad is not None
        cross = given.hidden[layer].grad is not None
        assert joint == (attention == "joint" and layer in read)
        assert cross == (attention == "cross" and layer in read)


@every_head
def test_nothing_flows_into_a_detached_context(kind, tokenizer):
    given = context(requires_grad=True)
    head = make_head(kind, tokenizer=tokenizer)
    loss(head, given.detached(), {"action": chunk()}).backward()
    assert all(x.grad is None for x in given.hidden.values())
    assert all(own.value_bgsd.grad is None for own in given.key_values.values())


@either_attention
@every_head
def test_masked_tokens_change_nothing(kind, attention, tokenizer):
    head = make_head(kind, attention=attention, tokenizer=tokenizer)
    given = context()
    hidden_bp1 = ~given.mask_bp[..., None]
    wild = dataclasses.replace(
        given,
        hidden={i: torch.where(hidden_bp1, 1e3, x) for i, x in given.hidden.items()},
        key_values={
            i: KeyValue(
                torch.where(hidden_bp1[:, None], 1e3, own.key_bgsd),
                torch.where(hidden_bp1[:, None], 1e3, own.value_bgsd),
            )
            for i, own in given.key_values.items()
        },
    )
    shown = dataclasses.replace(wild, mask_bp=torch.ones_like(given.mask_bp))
    batch = {"action": chunk()}
    with torch.inference_mode():
        plain = loss(head, given, batch)
        torch.testing.assert_close(loss(head, wild, batch), plain)
        assert not torch.allclose(loss(head, shown, batch), plain)


@every_head
def test_a_row_does_not_hang_on_the_others(kind, tokenizer):
    head = make_head(kind, tokenizer=tokenizer)
    given = context()
    first = dataclasses.replace(
        given,
        hidden={i: x[:1] for i, x in given.hidden.items()},
        key_values={},
        mask_bp=given.mask_bp[:1],
        next_position_b=given.next_position_b[:1],
        state_bs=given.state_bs[:1],
    )
    with torch.inference_mode():
        together, alone = head.actions(given, noise()), head.actions(first, noise()[:1])
    torch.testing.assert_close(together[:1], alone)


@either_attention
@every_head
def test_bf16_weights_and_autocast_come_near_fp32(kind, attention, tokenizer):
    head = make_head(kind, attention=attention, tokenizer=tokenizer)
    given, batch = context(), {"action": chunk()}
    plain = float(loss(head, given, batch).detach())
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(head, given, batch)
    cast.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in head.parameters())
    half = head.to(torch.bfloat16)
    halved = loss(half, given, batch)
    assert cast.dtype == halved.dtype == torch.float32
    assert float(cast.detach()) == pytest.approx(plain, rel=0.05)
    assert float(halved.detach()) == pytest.approx(plain, rel=0.05)
    with torch.inference_mode():
        found = half.actions(given, noise())
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


@every_head
def test_joint_attention_needs_keys_and_says_why(kind, tokenizer):
    offer = BackboneOffer(width=WIDTH, depth=DEPTH, no_joint="it is an encoder-decoder")
    with pytest.raises(CheckpointError, match="it is an encoder-decoder"):
        make_head(kind, attention="joint", offer=offer, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (0, DEPTH)}, f"reads layer {DEPTH}, the backbone has {DEPTH}"),
        ({"layers": (0, -DEPTH - 1)}, "reads layer -5"),
        ({"layers": (0,)}, "depth 2 reads 1 layers"),
        ({"attention": "joint", "depth": DEPTH + 1}, "5 layers reads a backbone of 4"),
        ({"attention": "joint", "heads": 3}, "heads cannot share the backbone's 2"),
        ({"heads": 5}, "cannot be cut into 5 even heads"),
        ({"depth": 0}, "depth 0"),
        ({"inference_steps": 0}, "0 inference_steps"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(CheckpointError, match=message):
        make_head("flow", **options)


def test_a_fast_head_without_tokenizer_is_refused():
    with pytest.raises(CheckpointError, match="needs a FAST tokenizer"):
        make_head("fast")


def test_layers_are_spread_up_to_the_last():
    assert make_head("flow", depth=2).reader.reads == (1, 3)
    assert make_head("flow", depth=6).reader.reads == (0, 0, 1, 1, 2, 3)
    assert make_head("flow", attention="joint", depth=4).reader.reads == (0, 1, 2, 3)


def test_joint_heads_take_the_backbone_s_rotation_and_heads():
    head = make_head("regression", attention="joint", heads=None)
    assert head.chunk.reader.shape == OFFER.attention
    given = context()
    later = dataclasses.replace(given, next_position_b=given.next_position_b + 7)
    with torch.inference_mode():
        assert not torch.allclose(head.actions(later, noise()), head.actions(given, noise()))


def test_bins_are_centres_and_their_ends_hold_what_is_beyond():
    values = torch.tensor([-9.0, -3.0, -0.001, 0.001, 2.999, 9.0])
    indices = to_bins(values, bins=256, limit=3.0)
    assert indices.tolist() == [0, 0, 127, 128, 255, 255]
    error = from_bins(indices, bins=256, limit=3.0)[1:5] - values[1:5]
    assert error.abs().max() <= 3.0 / 256 + 1e-6


def test_cached_decoding_is_what_one_pass_over_all_tokens_says(tokenizer):
    head = make_head("fast", attention="joint", tokenizer=tokenizer)
    given = context(rows=1)
    with torch.inference_mode():
        head.actions(given, noise(1))
        tokens = head.decoded.tokens_bn[0].tolist()
        tokens = tokens[: tokens.index(head._end) if head._end in tokens else len(tokens)]
        from fastvla_core.models.heads.fast import _Written

        logits = _Written(head, given).read(torch.tensor([[head._end, *tokens[:-1]]]))
    assert logits[0].argmax(dim=-1).tolist() == tokens


def test_a_draft_saves_passes_and_changes_nothing(tokenizer):
    head, given = make_head("fast", tokenizer=tokenizer), context(rows=1)
    with torch.inference_mode():
        plain = head.actions(given, noise(1))
        tokens, passes = head.decoded.tokens_bn[0].tolist(), head.decoded.passes
        head.draft = NgramDraft.fit([tokens])
        drafted = head.actions(given, noise(1))
    assert torch.equal(drafted, plain)
    assert head.decoded.passes < passes


def test_chunks_survive_the_fast_tokens_of_a_head(tokenizer):
    head, actions = make_head("fast", tokenizer=tokenizer, max_tokens=200), chunk()
    rows = head.tokens(actions)
    assert all(row[-1] == head._end for row in rows)
    decoded = torch.stack([torch.from_numpy(head._chunk(row)) for row in rows])
    # Coefficients are rounded to tenths of the limit.
    assert (decoded - actions).abs().max() < 3.0 / 10


def test_a_chunk_of_too_many_tokens_is_cut_and_logged(tokenizer, caplog):
    head = make_head("fast", tokenizer=tokenizer, max_tokens=4)
    rows = head.tokens(chunk())
    assert {len(row) for row in rows} == {4}
    assert "is cut to 4" in caplog.text


def test_flow_samples_of_one_observation_do_not_see_each_other():
    """Several samples at once give the mean of each alone."""
    head = make_head("flow")
    given = context()
    state, reading = head.reader.state_token(given), head.reader.read(given)
    points = random(ROWS, 3, SIZES.steps, SIZES.action)
    times = torch.rand(ROWS, 3, 1, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        together = head.velocity(points, times, state, reading)
        for r in range(3):
            alone = head.velocity(points[:, r : r + 1], times[:, r : r + 1], state, reading)
            torch.testing.assert_close(together[:, r : r + 1], alone)


def test_given_steps_count_nothing_in_the_loss():
    """Where the output hangs on nothing, the loss hangs on an action by its own error alone."""
    sizes = ActionSizes(steps=5, action=3, state=4, max_prefix_steps=4)
    head = make_head("flow", sizes=sizes, samples_per_observation=1)
    torch.nn.init.zeros_(head.action_out.weight)
    given = []
    for seed in range(12):
        action = chunk(seed=seed).requires_grad_()
        loss(head, context(), {"action": action}, seed=seed).backward()
        assert action.grad is not None
        given += (action.grad == 0).all(dim=-1).tolist()
    lengths = [sum(row) for row in given]
    assert all(row == [True] * n + [False] * (5 - n) for row, n in zip(given, lengths))
    assert set(lengths) == {0, 1, 2, 3, 4}


def test_unknown_heads_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no action head 'diffusion'.*bins, fast, flow"):
        ACTION_HEADS.load("diffusion")
