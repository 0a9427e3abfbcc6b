"""The options of the visual tokens on command lines."""

from __future__ import annotations

import argparse

from fastvla_core.arguments import share
from fastvla_core.models.vision_tokens.options import (
    PRUNING_CHOICES,
    TOKEN_HELP,
    VisionTokens,
    chosen_tokens,
)


def add_token_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --token-pruning, --token-keep, --camera-reuse and --prefix-reuse."""
    parser.add_argument(
        "--token-pruning", choices=PRUNING_CHOICES, default="stored",
        help=TOKEN_HELP["token_pruning"],
    )  # fmt: skip
    parser.add_argument(
        "--token-keep", type=share, default=0.5, metavar="SHARE", help=TOKEN_HELP["token_keep"]
    )
    parser.add_argument(
        "--camera-reuse", type=float, default=-1.0, metavar="LEVELS",
        help=TOKEN_HELP["camera_reuse"],
    )  # fmt: skip
    parser.add_argument("--prefix-reuse", action="store_true", help=TOKEN_HELP["prefix_reuse"])


def tokens_of(args: argparse.Namespace) -> VisionTokens | None:
    """What the arguments say; None leaves it to the checkpoint.

    Raises:
        PolicyError: a value is out of its range.
    """
    return chosen_tokens(
        args.token_pruning,
        keep=args.token_keep,
        camera_reuse=args.camera_reuse,
        prefix_reuse=args.prefix_reuse,
    )
