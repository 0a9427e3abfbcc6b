"""The policy types that run, for people who choose one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One policy type.

    Attributes:
        parameters: Of the published size, in words.
        memory: Of the weights.
        licence: Of the published weights.
        example: A published checkpoint.
    """

    title: str
    parameters: str
    memory: str
    licence: str
    example: str


CATALOGUE: dict[str, CatalogueEntry] = {
    "fastvla_flow": CatalogueEntry(
        title="FastVLA's own flow policy",
        parameters="2.3 M (nano)",
        memory="9 MB in float32",
        licence="Apache-2.0",
        example="nano",
    ),
    "fastvla_vla": CatalogueEntry(
        title="a vision-language backbone with an action head of your choice",
        parameters="the backbone's, and some ten million",
        memory="2 / 1 / 0.56 bytes per parameter in bf16 / int8 / NF4",
        licence="that of the backbone",
        example="docs/policies/vla.md",
    ),
    "smolvla": CatalogueEntry(
        title="SmolVLA",
        parameters="403 M",
        memory="0.81 / 0.45 / 0.36 GB in bf16 / int8 / NF4",
        licence="Apache-2.0",
        example="lerobot/smolvla_base",
    ),
    "pi0": CatalogueEntry(
        title="pi0",
        parameters="3.24 B",
        memory="6.5 / 3.8 / 2.8 GB in bf16 / int8 / NF4",
        licence="Gemma terms of use",
        example="lerobot/pi0_base",
    ),
    "pi05": CatalogueEntry(
        title="pi0.5",
        parameters="3.35 B",
        memory="6.7 / 3.9 / 2.9 GB in bf16 / int8 / NF4",
        licence="Gemma terms of use",
        example="lerobot/pi05_base",
    ),
    "pi0_fast": CatalogueEntry(
        title="pi0-FAST",
        parameters="2.92 B",
        memory="5.8 / 3.5 / 2.4 GB in bf16 / int8 / NF4",
        licence="Gemma terms of use",
        example="lerobot/pi0fast-base",
    ),
    "act": CatalogueEntry(
        title="ACT",
        parameters="51.6 M (two cameras or one)",
        memory="0.21 / 0.10 GB in float32 / bf16",
        licence="Apache-2.0",
        example="lerobot/act_aloha_sim_transfer_cube_human",
    ),
    "diffusion": CatalogueEntry(
        title="Diffusion Policy",
        parameters="263 M",
        memory="1.05 / 0.53 GB in float32 / bf16",
        licence="Apache-2.0",
        example="lerobot/diffusion_pusht",
    ),
}

HEADS: dict[str, str] = {
    "flow": "flow matching, continues plans (real-time chunking); pi0, arXiv:2410.24164",
    "regression": "one pass, absolute error; OpenVLA-OFT, arXiv:2502.19645",
    "bins": "one pass, 256 bins per action; OpenVLA, arXiv:2406.09246",
    "fast": "FAST tokens one after the other; arXiv:2501.09747",
}
