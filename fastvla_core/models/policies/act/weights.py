"""LeRobot's names of ACT's weights, and ours; there, one tensor projects queries, keys, values."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fastvla_core.models.lerobot.key_table import OLD_STATISTICS, KeyTable
from fastvla_core.models.lerobot.stored import is_floating
from fastvla_core.models.policies.visuomotor.weights import NAMED, backbone_pairs

_PARTS = ("q_proj", "k_proj", "v_proj")
_JOINT = re.compile(r"(.*_attn|.*multihead_attn)\.in_proj_(weight|bias)")
_SINGLE = re.compile(r"(.*_attn|.*multihead_attn)\.q_proj\.(weight|bias)")


def _layers(stored: str, own: str, norms: tuple[str, ...]) -> list[tuple[str, str]]:
    layer, ours = f"{stored}.layers.{{}}", f"{own}.layers.{{}}"
    pairs = [
        (layer, ours),
        (f"{layer}.self_attn.out_proj", f"{ours}.self_attn.o_proj"),
        (f"{layer}.multihead_attn", f"{ours}.cross_attn"),
        (f"{layer}.multihead_attn.out_proj", f"{ours}.cross_attn.o_proj"),
        (f"{layer}.linear1", f"{ours}.mlp.up_proj"),
        (f"{layer}.linear2", f"{ours}.mlp.down_proj"),
    ]
    numbered = enumerate(norms, start=1)
    return pairs + [(f"{layer}.norm{i}", f"{ours}.{name}_residual.norm") for i, name in numbered]


TABLE = KeyTable(
    pairs=(
        *backbone_pairs("model.backbone", "backbone", NAMED),
        ("model.encoder_img_feat_input_proj", "image_in"),
        ("model.encoder_robot_state_input_proj", "state_in"),
        ("model.encoder_latent_input_proj", "latent_in"),
        ("model.encoder_1d_feature_pos_embed", "vector_positions"),
        ("model.decoder_pos_embed", "step_positions"),
        ("model.action_head", "action_out"),
        ("model.encoder.norm", "encoder.norm"),
        ("model.decoder.norm", "decoder.norm"),
        *_layers("model.encoder", "encoder", ("attention", "mlp")),
        *_layers("model.decoder", "decoder", ("attention", "cross", "mlp")),
        ("model.vae_encoder.norm", "latent.encoder.norm"),
        *_layers("model.vae_encoder", "latent.encoder", ("attention", "mlp")),
        ("model.vae_encoder_cls_embed", "latent.summary"),
        ("model.vae_encoder_robot_state_input_proj", "latent.state_in"),
        ("model.vae_encoder_action_input_proj", "latent.action_in"),
        ("model.vae_encoder_latent_output_proj", "latent.latent_out"),
        ("model.vae_encoder_pos_enc", "latent.positions"),
    ),
    dropped=(OLD_STATISTICS,),
)


def split_projections(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with three projections for each joint one."""
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        joint = _JOINT.fullmatch(name)
        if joint is None:
            found[name] = tensor
            continue
        for part, rows in zip(_PARTS, tensor.chunk(3), strict=True):
            found[f"{joint[1]}.{part}.{joint[2]}"] = rows
    return found


def joined_projections(split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_projections`; what is quantised stays in three parts."""
    found = dict(split)
    for name in split:
        single = _SINGLE.fullmatch(name)
        if single is None:
            continue
        module, kind = single.groups()
        weights = [split[f"{module}.{part}.weight"] for part in _PARTS]
        if all(map(is_floating, weights)):
            parts = [found.pop(f"{module}.{part}.{kind}") for part in _PARTS]
            found[f"{module}.in_proj_{kind}"] = torch.cat(parts)
    return found
