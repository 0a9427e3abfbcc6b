"""LeRobot's and openpi's names of the pi policies' weights, and ours."""

from __future__ import annotations

from fastvla_core.models.lerobot.key_table import OLD_STATISTICS, KeyTable

_VLM = "model.paligemma_with_expert.paligemma.model"
_VISION = f"{_VLM}.vision_tower.vision_model"
_EXPERT = "model.paligemma_with_expert.gemma_expert.model"
_LAYER = (
    ("input_layernorm", "input_norm"),
    ("post_attention_layernorm", "mlp_norm"),
)
_VISION_LAYER = (
    ("layer_norm1", "input_norm"),
    ("layer_norm2", "mlp_norm"),
    ("self_attn.out_proj", "self_attn.o_proj"),
)
_PALIGEMMA = (
    (f"{_VLM}.multi_modal_projector.linear", "paligemma.projector"),
    (f"{_VISION}.embeddings.patch_embedding", "paligemma.vision.patch_embedding"),
    (f"{_VISION}.embeddings.position_embedding.weight", "paligemma.vision.positions"),
    (f"{_VISION}.post_layernorm", "paligemma.vision.final_norm"),
    (f"{_VISION}.encoder.layers.{{}}", "paligemma.vision.layers.{}"),
    *(
        (f"{_VISION}.encoder.layers.{{}}.{a}", f"paligemma.vision.layers.{{}}.{b}")
        for a, b in _VISION_LAYER
    ),
    # The head is tied to the embedding; what is stored goes by the head's name.
    (f"{_VLM}.language_model.embed_tokens", "paligemma.text.embed_tokens"),
    ("model.paligemma_with_expert.paligemma.lm_head", "paligemma.text.embed_tokens"),
    (f"{_VLM}.language_model.norm", "paligemma.text.final_norm"),
    (f"{_VLM}.language_model.layers.{{}}", "paligemma.text.layers.{}"),
    *(
        (f"{_VLM}.language_model.layers.{{}}.{a}", f"paligemma.text.layers.{{}}.{b}")
        for a, b in _LAYER
    ),
)
_EXPERT_PAIRS = (
    ("model.action_in_proj", "action_in"),
    ("model.action_out_proj", "action_out"),
    (f"{_EXPERT}.norm", "expert.final_norm"),
    (f"{_EXPERT}.layers.{{}}", "expert.layers.{}"),
    *((f"{_EXPERT}.layers.{{}}.{a}", f"expert.layers.{{}}.{b}") for a, b in _LAYER),
)
# openpi lacks "model." in front; Transformers before 4.52 named PaliGemma's parts otherwise, and
# from 5.6 on SigLIP's lose "vision_model.".
_SPELLINGS = (
    (r"^(?!model\.|(un)?normalize_)", "model."),
    (r"\.paligemma\.language_model\.lm_head\.", ".paligemma.lm_head."),
    (r"\.paligemma\.language_model\.model\.", ".paligemma.model.language_model."),
    (r"\.paligemma\.(vision_tower|multi_modal_projector)\.", r".paligemma.model.\1."),
    (r"\.vision_tower\.(?!vision_model\.)", ".vision_tower.vision_model."),
)
# The expert has no words, so its head is never read.
_UNUSED = (
    r"model\.paligemma_with_expert\.gemma_expert\.lm_head\.weight",
    r"model\.paligemma_with_expert\.gemma_expert\.model\.embed_tokens\.weight",
)
_DROPPED = (OLD_STATISTICS,)

PI0_TABLE = KeyTable(
    pairs=(
        *_PALIGEMMA,
        *_EXPERT_PAIRS,
        ("model.state_proj", "state_in"),
        ("model.action_time_mlp_in", "time_in"),
        ("model.action_time_mlp_out", "time_out"),
    ),
    spellings=(*_SPELLINGS, (r"^model\.time_mlp_", "model.action_time_mlp_")),
    unused=_UNUSED,
    dropped=_DROPPED,
)
PI05_TABLE = KeyTable(
    pairs=(
        *_PALIGEMMA,
        *_EXPERT_PAIRS,
        ("model.time_mlp_in", "time_in"),
        ("model.time_mlp_out", "time_out"),
    ),
    spellings=(*_SPELLINGS, (r"^model\.action_time_mlp_", "model.time_mlp_")),
    unused=_UNUSED,
    dropped=_DROPPED,
)
PI0_FAST_TABLE = KeyTable(pairs=_PALIGEMMA, spellings=_SPELLINGS, unused=_UNUSED, dropped=_DROPPED)
