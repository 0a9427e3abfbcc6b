"""`fastvla train`: from a folder of bags, or a recipe's own demonstrations, to a policy."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from fastvla_core.arguments import positive_float, positive_int
from training.commands.env_argument import add_env_argument
from training.recipe import Recipe, load_recipe

HELP = (
    "Fine-tune a policy from recorded bags, or train one by a recipe. Killed and started again "
    "with the same --out, it goes on where its last checkpoint was."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla train`."""
    parser.add_argument("bags", nargs="*", type=Path, help="bags, or folders that hold bags")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
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
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: all)")
    parser.add_argument("--workers", type=positive_int, default=2, help="processes that read bags")
    parser.add_argument(
        "--outcome", choices=["success", "any"], default="success", help="bags to learn from"
    )
    parser.add_argument("--instruction", help="for bags that carry none")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Train; returns 0 when the policy is written."""
    from training import evaluation_table as table
    from training.cache_build import SUCCESS_ONLY
    from training.pipeline import run_recipe
    from training.processes import training_processes

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


def _with_overrides(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    names = ("steps", "batch_size", "learning_rate")
    training = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **training))
    if args.policy:
        recipe = dataclasses.replace(recipe, policy=args.policy, new=False, policy_options={})
    if args.env:
        recipe = recipe.for_tasks(args.env)
    if args.contract:
        recipe = dataclasses.replace(recipe, contract=args.contract)
    return recipe
