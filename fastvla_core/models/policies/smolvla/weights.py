"""LeRobot's names of SmolVLA's weights, and ours."""

from __future__ import annotations

import re

from fastvla_core.models.lerobot.key_table import OLD_STATISTICS, KeyTable

_VLM = "model.vlm_with_expert.vlm.model"
WORD_HEAD = "model.vlm_with_expert.vlm.lm_head.weight"
_EXPERT = "model.vlm_with_expert.lm_expert"
_LAYER = (
    ("input_layernorm", "input_norm"),
    ("post_attention_layernorm", "mlp_norm"),
)
_VISION_LAYER = (
    ("layer_norm1", "input_norm"),
    ("layer_norm2", "mlp_norm"),
    ("self_attn.out_proj", "self_attn.o_proj"),
)

TABLE = KeyTable(
    pairs=(
        ("model.state_proj", "state_in"),
        ("model.action_in_proj", "action_in"),
        ("model.action_out_proj", "action_out"),
        ("model.action_time_mlp_in", "time_in"),
        ("model.action_time_mlp_out", "time_out"),
        (f"{_VLM}.connector.modality_projection.proj", "connector"),
        (f"{_VLM}.vision_model.embeddings.patch_embedding", "vision.patch_embedding"),
        (f"{_VLM}.vision_model.embeddings.position_embedding.weight", "vision.positions"),
        (f"{_VLM}.vision_model.post_layernorm", "vision.final_norm"),
        (f"{_VLM}.vision_model.encoder.layers.{{}}", "vision.layers.{}"),
        *(
            (f"{_VLM}.vision_model.encoder.layers.{{}}.{a}", f"vision.layers.{{}}.{b}")
            for a, b in _VISION_LAYER
        ),
        (f"{_VLM}.text_model.embed_tokens", "text.embed_tokens"),
        (f"{_VLM}.text_model.norm", "text.final_norm"),
        (f"{_VLM}.text_model.layers.{{}}", "text.layers.{}"),
        *((f"{_VLM}.text_model.layers.{{}}.{a}", f"text.layers.{{}}.{b}") for a, b in _LAYER),
        (f"{_EXPERT}.norm", "expert.final_norm"),
        (f"{_EXPERT}.layers.{{}}", "expert.layers.{}"),
        *((f"{_EXPERT}.layers.{{}}.{a}", f"expert.layers.{{}}.{b}") for a, b in _LAYER),
    ),
    unused=(re.escape(WORD_HEAD),),
    dropped=(OLD_STATISTICS,),
)
