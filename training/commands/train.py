"""`fastvla train`: from a folder of bags, or a recipe's own demonstrations, to a policy."""

from __future__ import annotations

import argparse
import dataclasses
import json
import typing
from pathlib import Path

from fastvla_core.arguments import positive_float, positive_int
from fastvla_core.errors import DatasetError
from training.commands.env_argument import add_env_argument
from training.recipe import Parallel, Recipe, load_recipe

HELP = (
    "Fine-tune a policy from recorded bags, or train one by a recipe. Killed and started again "
    "with the same --out, it goes on where its last checkpoint was."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla train`."""
    parser.add_argument("bags", nargs="*", type=Path, help="bags, or folders that hold bags")
    parser.add_argument("--out", type=Path, help="where everything is written")
    parser.add_argument(
        "--estimate", action="store_true", help="say what memory a run needs, and start nothing"
    )
    parser.add_argument(
        "--gpu-gb", type=positive_float, help="memory of the GPU to estimate for [GB]"
    )
    parser.add_argument(
        "--processes", type=positive_int, default=1, help="that share a batch, to estimate for"
    )
    parser.add_argument(
        "--parallel",
        choices=typing.get_args(Parallel),
        help="what processes share, instead of the recipe's",
    )
    parser.add_argument("--policy", help="checkpoint or name to start from (default: nano)")
    parser.add_argument(
        "--recipe",
        default="finetune",
        help="a shipped recipe (finetune, lora, nano, metaworld) or a .yaml file",
    )
    add_env_argument(parser)
    parser.add_argument("--contract", help="robot contract (default: the recipe's)")
    parser.add_argument("--steps", type=positive_int, help="instead of the recipe's")
    parser.add_argument("--batch-size", type=positive_int, help="instead of the recipe's")
    parser.add_argument("--learning-rate", type=positive_float, help="instead of the recipe's")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the curves for TensorBoard too"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: all)")
    parser.add_argument("--workers", type=positive_int, default=2, help="processes that read bags")
    parser.add_argument(
        "--outcome", choices=["success", "any"], default="success", help="bags to learn from"
    )
    parser.add_argument("--instruction", help="for bags that carry none")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Train; returns 0 when the policy is written.

    Raises:
        DatasetError: `--out` is missing.
    """
    from training import evaluation_table as table
    from training.cache_build import SUCCESS_ONLY
    from training.pipeline import run_recipe
    from training.processes import training_device, training_processes

    if args.estimate:
        recipe = _with_overrides(load_recipe(args.recipe), args)
        return _estimate(recipe, gpu_gb=args.gpu_gb, processes=args.processes)
    if args.out is None:
        raise DatasetError("`--out` is missing", mend="name the folder to write to: --out DIR")
    recipe = _with_overrides(load_recipe(args.recipe), args)
    with training_processes() as processes:
        result = run_recipe(
            recipe,
            bags=args.bags,
            out=args.out,
            workers=args.workers,
            threads=args.threads,
            outcomes=None if args.outcome == "any" else SUCCESS_ONLY,
            instruction=args.instruction,
            processes=processes,
            device=training_device(args.device),
        )
    if not processes.first:
        return 0
    if args.json:
        print(json.dumps(dataclasses.asdict(result), indent=1, default=str))
    else:
        print(f"policy: {result.policy}\nloss curve: {result.curve}\ntook {result.wall_s:.0f} s")
        width = table.task_width(recipe.demonstrations.episodes) if result.evaluation else 0
        for found in result.evaluation:
            print(table.line(found, width=width))
        if not result.evaluation:
            print(f"try it: fastvla eval --policy {result.policy}")
    return 0


def _estimate(recipe: Recipe, *, gpu_gb: float | None, processes: int) -> int:
    """Print what each process of a run needs; see that it fits the GPU, where one is named."""
    from training.memory_plan import plan_memory, require_planned

    estimate = plan_memory(recipe, processes=processes)
    gpu_gb = gpu_gb or recipe.gpu_gb
    if gpu_gb:
        require_planned(recipe, estimate, gpu_gb=gpu_gb, processes=processes)
    print("\n".join(estimate.table()))
    if gpu_gb:
        print(f"fits a GPU of {gpu_gb:g} GB")
    return 0


def _with_overrides(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    names = ("steps", "batch_size", "learning_rate", "parallel")
    training = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **training))
    if args.policy:
        recipe = dataclasses.replace(recipe, policy=args.policy, new=False, policy_options={})
    if args.tensorboard:
        recipe = dataclasses.replace(recipe, tensorboard=True)
    if args.env:
        recipe = recipe.for_tasks(args.env)
    if args.contract:
        recipe = dataclasses.replace(recipe, contract=args.contract)
    return recipe
