"""Evaluation: what is counted, and what is refused before it costs time."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from fastvla_core.cli import main
from fastvla_core.errors import ObservationError, PolicyError, SimError
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.sim.instructions import HELD_OUT_TEMPLATES, TRAINING_TEMPLATES
from fastvla_core.sim.tasks import FIRST_EVALUATION_SEED, TASKS
from training import evaluate as evaluation
from training.commands import evaluate as command
from training.evaluate import EvaluationConfig, EvaluationResult, evaluate, evaluation_task
from training.record_expert import demonstration_task

FIRST = FIRST_EVALUATION_SEED


def config(**others) -> EvaluationConfig:
    return EvaluationConfig(
        **{"policy": "nano", "task": "reach", "seeds": (FIRST, FIRST + 2), **others}
    )


def test_counts_do_not_depend_on_the_number_of_processes():
    one, two = evaluate(config()), evaluate(config(workers=2))
    assert dataclasses.replace(one, wall_s=0) == dataclasses.replace(two, wall_s=0)
    assert one.episodes == 2
    assert one.successes + len(one.failed_seeds) == 2


@pytest.mark.parametrize("seeds", [(5, 5), (9, 3), (-1, 3)])
def test_seeds_that_name_no_scene_are_refused(seeds: tuple[int, int]):
    with pytest.raises(SimError, match="name no scene"):
        evaluate(config(seeds=seeds))


def test_a_camera_to_mask_must_be_the_policys():
    with pytest.raises(ObservationError, match="no camera 'frnt' to mask") as caught:
        evaluate(config(masked_cameras=("frnt",)))
    assert "front" in caught.value.mend


def test_masking_takes_the_camera_from_the_policy(monkeypatch: pytest.MonkeyPatch):
    seen = []

    class Spy:
        def __init__(self, policy) -> None:
            self.config, self.vision_tokens = policy.config, policy.vision_tokens
            self.history_s = policy.history_s
            self._policy = policy

        def infer_batch(self, observations, **options):
            seen.extend(set(o.images) for o in observations)
            return self._policy.infer_batch(observations, **options)

    load = evaluation.FastVLA.from_pretrained
    monkeypatch.setattr(evaluation.FastVLA, "from_pretrained", lambda *a, **k: Spy(load(*a, **k)))
    evaluate(config(seeds=(FIRST, FIRST + 1), masked_cameras=("wrist",)))
    assert seen
    assert all(cameras == {"front"} for cameras in seen)


def test_against_the_clock_the_limits_are_kept_and_the_peaks_are_told(capsys):
    seeds = f"{FIRST}:{FIRST + 1}"
    options = ["--seeds", seeds, "--workers", "1", "--latency", "0.2", "--chunk-merge", "rtc"]
    assert main(["eval", "--task", "reach", *options]) == 0
    assert "of the limits" in capsys.readouterr().out
    result = evaluate(config(seeds=(FIRST, FIRST + 1), latency_s=0.2, chunk_merge="rtc"))
    assert result.peak_acceleration is not None
    assert 0 < result.peak_acceleration <= 1


def test_a_policy_that_remembers_is_run_goal_by_goal():
    plain = evaluate(config())
    reusing = evaluate(config(vision_tokens=VisionTokens(camera_reuse=0.0)))
    assert dataclasses.replace(plain, wall_s=0) == dataclasses.replace(reusing, wall_s=0)


def test_visual_tokens_are_options_of_the_command(capsys):
    seeds = ["--task", "reach", "--seeds", f"{FIRST}:{FIRST + 1}", "--workers", "1"]
    tokens = ["--token-pruning", "adaptive", "--token-keep", "0.5", "--latency", "0"]
    assert main(["eval", *seeds, *tokens]) == 0
    assert "/1" in capsys.readouterr().out
    assert main(["eval", *seeds, "--token-pruning", "pool", "--token-keep", "0.375"]) == 1
    assert "cannot keep 0.375" in capsys.readouterr().err


def test_a_merge_that_the_policy_was_not_trained_for_is_refused():
    with pytest.raises(PolicyError, match="cannot be merged by 'rtc_trained'"):
        evaluate(config(latency_s=0.1, chunk_merge="rtc_trained"))


@pytest.mark.parametrize("kind", TASKS)
def test_paraphrases_are_in_no_demonstration(kind):
    trained = {" ".join(template.split()).lower() for template in TRAINING_TEMPLATES[kind]}
    assert not trained & {" ".join(t.split()).lower() for t in HELD_OUT_TEMPLATES[kind]}
    held_out = {evaluation_task(kind, s, paraphrase=True).instruction for s in range(60)}
    shown = {demonstration_task(kind, s).instruction for s in range(400)}
    assert not held_out & shown


def test_a_place_that_cannot_be_written_shows_before_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command, "evaluate", lambda _: pytest.fail("it ran"))
    assert main(["eval", "--json", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_earlier_numbers_survive_an_evaluation_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "numbers.json"
    file.write_text("earlier")
    assert main(["eval", "--policy", str(tmp_path), "--json", str(file), "--workers", "1"]) == 1
    assert file.read_text() == "earlier"


def test_json_without_a_success_is_valid_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nothing = EvaluationResult(
        task="reach", episodes=1, successes=0, wrong_object=0, success_rate=0.0,
        interval=(0.0, 0.8), mean_time_s=math.nan, failed_seeds=(5,), wall_s=1.0,
    )  # fmt: skip
    monkeypatch.setattr(command, "evaluate", lambda _: nothing)
    file = tmp_path / "new" / "numbers.json"
    arguments = ["eval", "--policy", "NaN", "--task", "reach", "--json", str(file)]
    assert main([*arguments, "--at-least", "0.5"]) == 1
    read = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert read["settings"]["policy"] == "NaN"
    assert read["results"][0]["mean_time_s"] is None


def test_scenes_that_may_have_been_trained_on_are_pointed_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command, "evaluate", lambda _: (_ for _ in ()).throw(SimError("stop")))
    main(["eval", "--seeds", "0:5"])
    assert "may have been trained on" in capsys.readouterr().err
    main(["eval"])
    assert "may have been trained on" not in capsys.readouterr().err
