"""LeRobot's names of Diffusion Policy's weights, and ours."""

from __future__ import annotations

from fastvla_core.models.lerobot.key_table import OLD_STATISTICS, KeyTable
from fastvla_core.models.policies.visuomotor.weights import NUMBERED, backbone_pairs

_UNET = "diffusion.unet"


def _encoder(stored: str, own: str) -> list[tuple[str, str]]:
    return [
        *backbone_pairs(f"{stored}.backbone", f"{own}.backbone", NUMBERED),
        (f"{stored}.pool.nets", f"{own}.pool.features"),
        (f"{stored}.pool.pos_grid", f"{own}.pool.grid"),
        (f"{stored}.out", f"{own}.out"),
    ]


def _conv_block(stored: str, own: str) -> list[tuple[str, str]]:
    return [(f"{stored}.block.0", f"{own}.conv"), (f"{stored}.block.1", f"{own}.norm")]


def _conditioned(stored: str, own: str) -> list[tuple[str, str]]:
    return [
        *_conv_block(f"{stored}.conv1", f"{own}.block1"),
        *_conv_block(f"{stored}.conv2", f"{own}.block2"),
        (f"{stored}.cond_encoder.1", f"{own}.film"),
        (f"{stored}.residual_conv", f"{own}.shortcut"),
    ]


def _level(stored: str, own: str) -> list[tuple[str, str]]:
    return [
        *_conditioned(f"{stored}.0", f"{own}.block1"),
        *_conditioned(f"{stored}.1", f"{own}.block2"),
        (f"{stored}.2", f"{own}.resample"),
    ]


TABLE = KeyTable(
    pairs=(
        *_encoder("diffusion.rgb_encoder", "encoders.shared"),
        *_encoder("diffusion.rgb_encoder.{}", "encoders.{}"),
        (f"{_UNET}.diffusion_step_encoder.1", "unet.step_in"),
        (f"{_UNET}.diffusion_step_encoder.3", "unet.step_out"),
        *_level(f"{_UNET}.down_modules.{{}}", "unet.down.{}"),
        *_level(f"{_UNET}.mid_modules", "unet.middle"),
        *_level(f"{_UNET}.up_modules.{{}}", "unet.up.{}"),
        *_conv_block(f"{_UNET}.final_conv.0", "unet.last"),
        (f"{_UNET}.final_conv.1", "unet.action_out"),
    ),
    dropped=(OLD_STATISTICS,),
)
