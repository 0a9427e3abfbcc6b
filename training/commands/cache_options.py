"""Options of the commands that write a cache."""

from __future__ import annotations

import argparse

from fastvla_core.arguments import positive_int, share
from training.cache import Pictures
from training.cache_shard import JPEG_QUALITY


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """How pictures are stored, and which episodes statistics leave out."""
    parser.add_argument(
        "--images",
        choices=["auto", "raw", "jpeg"],
        default="auto",
        help="how pictures are stored (default: raw up to 128x128, else JPEG)",
    )
    parser.add_argument(
        "--image-size", type=positive_int, default=0, metavar="PIXELS", help="longest side at most"
    )
    parser.add_argument(
        "--quality",
        type=positive_int,
        default=JPEG_QUALITY,
        help=f"of JPEG files that are packed anew, 1 to 100 (default {JPEG_QUALITY})",
    )
    parser.add_argument(
        "--validation",
        type=share,
        default=0.02,
        help="share of the episodes that statistics leave out (default 0.02)",
    )


def pictures_of(args: argparse.Namespace) -> Pictures:
    """What was said about pictures; raises DatasetError as `Pictures`."""
    return Pictures(format=args.images, longest_side=args.image_size, quality=args.quality)
