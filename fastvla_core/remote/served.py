"""Loads a policy for `fastvla serve`, and says what it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastvla_core import __version__
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.policy import FastVLA
from fastvla_core.remote.messages import Description
from fastvla_core.serving import load_to_serve


def load_served(
    checkpoint: str,
    *,
    quantization: str,
    device: str,
    threads: int,
    vision_tokens: VisionTokens | None = None,
) -> tuple[FastVLA, Description]:
    """The policy and its description; the arguments are those of `load_to_serve`.

    Raises:
        FastVLAError: it is missing, damaged, or cannot be loaded so.
    """
    folder = find_checkpoint(checkpoint)
    policy = load_to_serve(
        str(folder),
        quantization=quantization,
        device=device,
        threads=threads,
        vision_tokens=vision_tokens,
    )
    description = Description(
        version=__version__,
        checkpoint=checkpoint,
        policy_id=policy_id(
            folder, quantization=policy.quantization or "", vision_tokens=vision_tokens
        ),
        quantization=policy.quantization or "",
        device=str(policy.device),
        contract=policy.config.robot_contract,
        conditionings=policy.conditionings,
        history_s=policy.history_s,
    )
    return policy, description


def policy_id(folder: Path, *, quantization: str, vision_tokens: VisionTokens | None = None) -> str:
    """A digest of a checkpoint's files and of how its weights and visual tokens are served."""
    digest = hashlib.sha256(quantization.encode())
    if vision_tokens is not None:
        digest.update(repr(vision_tokens).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".md" or path.relative_to(folder).parts[0].startswith("."):
            continue
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
