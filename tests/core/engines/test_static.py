"""Static buffers, prompt buckets, masks, replays: everything of the graph engine but the graph."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.engines.buckets import MAX_SHAPES, StaticRequest, prompt_length
from fastvla_core.engines.recorder import EagerRecorder, Recording
from fastvla_core.engines.static import StaticEngine, static_engine
from fastvla_core.errors import PolicyError
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.policy import FastVLA
from fastvla_core.types import ChunkPrefix

from ..models.tiny import tiny_policy
from .policies import KINDS, furthest, observations, policy_of

# Rounding: a longer prompt is summed in another order.
EXACT = 1e-5


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_actions_are_those_of_the_network(kind, quantization, tmp_path: Path):
    policy = policy_of(kind, tmp_path, engine="static", quantization=quantization)
    reference = policy_of(kind, tmp_path, quantization=quantization)
    assert policy.engine.name == "static"
    assert furthest(policy, reference) < EXACT


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_its_rows_give(kind, tmp_path: Path):
    policy = policy_of(kind, tmp_path, engine="static")
    seen = observations(policy)[:3]
    for chunk, observation in zip(policy.infer_batch(seen), seen, strict=True):
        np.testing.assert_allclose(
            chunk.positions, policy.infer(observation).positions, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 8), (8, 8), (9, 16), (33, 48), (48, 48), (49, 49)]
)
def test_a_prompt_is_padded_to_the_next_length_that_the_policy_reads(tokens, expected):
    assert prompt_length(tokens, lengths=StaticEngine.lengths, longest=48) == expected


def test_without_lengths_every_prompt_is_padded_to_the_longest():
    assert prompt_length(5, lengths=(), longest=48) == 48


def test_prompts_of_one_bucket_share_their_buffers_and_loading_prepares_every_bucket(
    tmp_path: Path,
):
    policy = policy_of("smolvla", tmp_path, engine="static")
    assert isinstance(policy.engine, StaticEngine)
    longest = policy.config.tokenizer_max_length
    buckets = {n for n in StaticEngine.lengths if n < longest} | {longest}
    assert policy.engine.prepared_shapes == len(buckets)
    for observation in observations(policy)[:3]:
        policy.infer(observation)
    assert policy.engine.prepared_shapes == len(buckets)


def test_a_missing_camera_of_pi0_needs_no_shapes_of_its_own(tmp_path: Path):
    policy = policy_of("pi0", tmp_path, engine="static")
    assert isinstance(policy.engine, StaticEngine)
    before = policy.engine.prepared_shapes
    policy.infer(observations(policy)[-1])
    assert policy.engine.prepared_shapes == before


def test_what_an_earlier_request_left_in_the_buffers_does_not_show(tmp_path: Path):
    policy = policy_of("smolvla", tmp_path, engine="static")
    short, _, long, hidden = observations(policy)
    first = policy.infer(short).positions
    for other in (long, hidden):
        policy.infer(other)
        assert np.array_equal(policy.infer(short).positions, first)


def test_the_buffers_are_written_in_place_and_cleared_behind_a_shorter_prompt():
    long = {"tokens": torch.full((1, 7), 3), "token_mask": torch.ones(1, 7, dtype=torch.bool)}
    noise = torch.ones(1, 2, 2)
    request = StaticRequest.like(long, noise, prompt=8)
    request.fill(long, noise)
    places = [t.data_ptr() for t in (*request.inputs.values(), request.noise_bta)]
    short = {name: tensor[:, :2] for name, tensor in long.items()}
    request.fill(short, 2 * noise)
    assert places == [t.data_ptr() for t in (*request.inputs.values(), request.noise_bta)]
    assert request.inputs["tokens"].tolist() == [[3, 3] + 6 * [0]]
    assert request.inputs["token_mask"].sum() == 2
    assert request.noise_bta.unique().tolist() == [2.0]


def test_a_replay_writes_into_the_tensors_of_the_first_run():
    source = torch.zeros(2)
    recording = EagerRecorder().record(lambda: (source + 1, (source * 2,)))
    outputs = recording.outputs
    source.fill_(3.0)
    recording.replay()
    assert outputs[0].tolist() == [4.0, 4.0]
    assert outputs[1][0].tolist() == [6.0, 6.0]


class _Journal(EagerRecorder):
    """Says which recording was made and replayed, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def record(self, work):
        name = f"{'whole' if len(self.entries) % 2 == 0 else 'expert'}"
        self.entries.append(f"record {name}")
        recording = super().record(work)

        def replay() -> None:
            self.entries.append(f"replay {name}")
            recording.replay()

        return Recording(recording.outputs, replay)


def test_a_request_replays_the_whole_and_a_refresh_the_expert_alone():
    policy, journal = tiny_policy(), _Journal()
    engine = StaticEngine(policy.model.eval(), recorder=journal, name="static")
    batch, noise = _request(policy)
    engine(batch, noise)
    engine(batch, noise)
    engine.refresh(noise)
    assert journal.entries == [
        "record whole", "record expert", "replay whole", "replay whole", "replay expert",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_refresh_gives_the_chunk_of_the_same_observation_and_another_noise(kind, tmp_path: Path):
    policy = policy_of(kind, tmp_path, engine="static")
    assert isinstance(policy.engine, StaticEngine)
    batch, noise = _request(policy)
    whole = policy.engine(batch, -noise)
    policy.engine(batch, noise)
    torch.testing.assert_close(policy.engine.refresh(-noise), whole, rtol=0, atol=EXACT)
    other = policy.engine.refresh(-noise, state=batch["state"] + 1)
    # Only pi0 reads the state behind the prefix.
    assert (kind == "pi0") == (
        not torch.equal(other, policy.engine.refresh(-noise, batch["state"]))
    )


def test_a_refresh_without_a_request_of_its_size_is_refused():
    policy = tiny_policy()
    engine = static_engine(policy.model.eval())
    batch, noise = _request(policy)
    engine.prepare(batch, noise)
    with pytest.raises(PolicyError, match="no prefix to refresh"):
        engine.refresh(noise)
    engine(batch, noise)
    with pytest.raises(PolicyError, match="no prefix to refresh"):
        engine.refresh(noise.repeat(2, 1, 1))


def test_the_result_is_not_overwritten_by_the_next_request():
    policy = tiny_policy()
    engine = static_engine(policy.model.eval())
    batch, noise = _request(policy)
    first = engine(batch, noise)
    kept = first.clone()
    engine(batch, -noise)
    assert torch.equal(first, kept)


def test_the_least_recently_used_shapes_go_first():
    policy = tiny_policy()
    engine = static_engine(policy.model.eval())
    batch, noise = _request(policy)
    for rows in range(1, MAX_SHAPES + 2):
        repeated = {name: torch.cat([tensor] * rows) for name, tensor in batch.items()}
        engine(repeated, noise.repeat(rows, 1, 1))
    assert engine.prepared_shapes == MAX_SHAPES


def test_threads_take_turns_at_the_buffers():
    policy = tiny_policy()
    engine = static_engine(policy.model.eval())
    requests = [_request(policy, seed) for seed in range(4)]
    expected = [engine(*request) for request in requests]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            if not torch.equal(engine(*requests[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plan_to_continue_goes_through_the_network_itself(tmp_path: Path):
    policy = policy_of("flow", tmp_path, engine="static")
    reference = policy_of("flow", tmp_path)
    observation = observations(policy)[0]
    plan = reference.infer(observation)
    prefix = ChunkPrefix(
        names=plan.names, positions=plan.positions, frozen=1, conditioning="inpaint"
    )
    guided = policy.infer(observation, prefix=prefix).positions
    assert np.array_equal(guided, reference.infer(observation, prefix=prefix).positions)
    assert np.array_equal(policy.infer(observation).positions, plan.positions)


@pytest.mark.parametrize(
    "tokens",
    [VisionTokens(pruning="uniform", keep=0.5), VisionTokens(camera_reuse=4.0, prefix_reuse=True)],
)
def test_visual_tokens_that_are_pruned_or_reused_go_through_the_network_itself(
    tokens: VisionTokens, tmp_path: Path
):
    tiny_policy().save_pretrained(tmp_path)
    policies = [
        FastVLA.from_pretrained(tmp_path, engine=engine, vision_tokens=tokens)
        for engine in ("static", "eager")
    ]
    observation = policies[0].processor.random_observation(1)
    again = dataclasses.replace(observation, stamp_ns=observation.stamp_ns + 1)
    for seen in (observation, again):
        ours, theirs = (policy.infer(seen).positions for policy in policies)
        assert np.array_equal(ours, theirs)


def _request(policy: FastVLA, seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    observation = policy.processor.random_observation(seed)
    batch = policy.processor.observation_batch([observation], device=policy.device)
    generator = torch.Generator().manual_seed(seed)
    return batch, torch.randn(1, *policy.config.noise_shape, generator=generator)
