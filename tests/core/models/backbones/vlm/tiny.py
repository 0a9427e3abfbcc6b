"""Each family in a size for tests, with a real tokenizer made on the spot."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.interface import VLMBackbone

_SPECIAL = (
    "<pad> <s> </s> <bos> <eos> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> "
    "<|image_pad|> <|video_pad|> <image> <video> <img> </img> <IMG_CONTEXT> <start_of_turn> "
    "<end_of_turn> <start_of_image> <end_of_image> <image_soft_token> <fake_token_around_image> "
    "<global-img> <end_of_utterance>"
)
TEXTS = ("pick up the red cube", "stack the red cube on the blue one, then wait")
ANSWERS = ("red", "on the blue cube")

# Language models: width 32, two layers, four heads, two of them for keys.
WIDTH, LAYERS = 32, 2
_LANGUAGE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


class Ids:
    """The special tokens' ids, as config fields."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()

    def __getitem__(self, token: str) -> int:
        return self._tokenizer.token_to_id(token)

    def language(self, *, eos: str = "<|im_end|>", **others: Any) -> dict[str, Any]:
        """A language model's config."""
        ends = {"eos_token_id": self[eos], "pad_token_id": self["<pad>"], "bos_token_id": None}
        return {**_LANGUAGE, "vocab_size": self.size, **ends, **others}


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=_SPECIAL.split(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *ANSWERS] * 5, trainer)
    return tokenizer


def qwen2_vl(ids: Ids) -> Any:
    return _qwen(ids, hf.Qwen2VLConfig, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2)


def qwen2_5_vl(ids: Ids) -> Any:
    return _qwen(
        ids,
        hf.Qwen2_5_VLConfig,
        depth=2,
        intermediate_size=64,
        num_heads=4,
        fullatt_block_indexes=[1],
        window_size=28,
        out_hidden_size=WIDTH,
    )


def qwen3_vl(ids: Ids) -> Any:
    return _qwen(
        ids,
        hf.Qwen3VLConfig,
        language={"head_dim": 8},
        depth=2,
        intermediate_size=64,
        num_heads=4,
        out_hidden_size=WIDTH,
        num_position_embeddings=64,
        deepstack_visual_indexes=[0, 1],
    )


def _qwen(ids: Ids, kind: Any, *, language: dict[str, Any] | None = None, **vision: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    return kind(
        text_config=ids.language(rope_parameters=rope, **(language or {})),
        vision_config={
            "hidden_size": 32,
            "patch_size": 7,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "in_channels": 3,
            **vision,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def paligemma(ids: Ids) -> Any:
    language = ids.language(eos="<eos>", model_type="gemma", head_dim=8, tie_word_embeddings=True)
    return _paligemma(ids, language)


def paligemma2(ids: Ids) -> Any:
    language = ids.language(
        eos="<eos>",
        model_type="gemma2",
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        tie_word_embeddings=True,
    )
    return _paligemma(ids, language)


def _paligemma(ids: Ids, language: dict[str, Any]) -> Any:
    vision = {**_VISION, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7}
    return hf.PaliGemmaConfig(
        text_config=language,
        vision_config={**vision, "projection_dim": WIDTH, "vision_use_head": False},
        projection_dim=WIDTH,
        image_token_index=ids["<image>"],
    )


def internvl(ids: Ids) -> Any:
    return hf.InternVLConfig(
        text_config=ids.language(model_type="qwen2"),
        vision_config={**_VISION, "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=4,
    )


def llava(ids: Ids) -> Any:
    vision = {**_VISION, "model_type": "clip_vision_model", "image_size": 28, "patch_size": 7}
    return hf.LlavaConfig(
        text_config=ids.language(eos="</s>", model_type="llama"),
        vision_config=vision,
        image_token_index=ids["<image>"],
        image_seq_length=16,
    )


def llava_onevision(ids: Ids) -> Any:
    vision = {**_VISION, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7}
    return hf.LlavaOnevisionConfig(
        text_config=ids.language(model_type="qwen2"),
        vision_config={**vision, "vision_use_head": False},
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=[[28, 28], [28, 56]],
    )


def florence2(ids: Ids) -> Any:
    return hf.Florence2Config(
        text_config={
            "model_type": "bart",
            "d_model": WIDTH,
            "encoder_layers": LAYERS,
            "decoder_layers": LAYERS,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "vocab_size": ids.size,
            "max_position_embeddings": 128,
            "pad_token_id": ids["<pad>"],
            "bos_token_id": ids["<s>"],
            "eos_token_id": ids["</s>"],
            # With tied weights the next word is the last one; a special token would end it.
            "decoder_start_token_id": ids["a"],
        },
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 16, 24, 32],
            "num_heads": [1, 2, 3, 4],
            "num_groups": [1, 2, 3, 4],
            "window_size": 4,
            "projection_dim": WIDTH,
            "max_temporal_embeddings": 4,
            "max_position_embeddings": 8,
        },
        image_token_id=ids["<image>"],
        image_seq_length=5,
    )


def smolvlm(ids: Ids) -> Any:
    return _smolvlm(ids, hf.SmolVLMConfig)


def idefics3(ids: Ids) -> Any:
    return _smolvlm(ids, hf.Idefics3Config)


def _smolvlm(ids: Ids, kind: Any) -> Any:
    return kind(
        text_config=ids.language(eos="<end_of_utterance>", model_type="llama"),
        vision_config={**_VISION, "image_size": 28, "patch_size": 7},
        image_token_id=ids["<image>"],
        scale_factor=2,
        pad_token_id=ids["<pad>"],
        tie_word_embeddings=False,
    )


def gemma3(ids: Ids) -> Any:
    vision = {**_VISION, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7}
    return hf.Gemma3Config(
        text_config=ids.language(
            eos="<end_of_turn>",
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
        ),
        vision_config={**vision, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
    )


def fast_vlm(ids: Ids) -> dict[str, Any]:
    # As a plain table: without timm, Transformers cannot even make the config.
    return {
        "model_type": "fast_vlm",
        "text_config": ids.language(model_type="qwen2"),
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "do_pooling": True,
            "global_pool": "avg",
            "hidden_size": 3072,
            "num_classes": 0,
            "label_names": [],
            "model_args": {"inference_mode": True},
        },
        "image_token_index": ids["<image>"],
    }


FAMILIES: dict[str, Callable[[Ids], Any]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "paligemma": paligemma,
    "paligemma2": paligemma2,
    "internvl": internvl,
    "llava": llava,
    "llava_onevision": llava_onevision,
    "florence2": florence2,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "gemma3": gemma3,
}
# Image settings, as checkpoints have them, where a config does not hold the size.
SETTINGS: dict[str, dict[str, Any]] = {
    "florence2": {"crop_size": {"height": 64, "width": 64}},
    "qwen2_vl": {"min_pixels": 28 * 28, "max_pixels": 64 * 64},
    "qwen2_5_vl": {"min_pixels": 28 * 28, "max_pixels": 64 * 64},
    "qwen3_vl": {"size": {"shortest_edge": 28 * 28, "longest_edge": 64 * 64}},
    "fast_vlm": {"crop_size": {"height": 64, "width": 64}},
}


def write_folder(folder: Path, family: str) -> Path:
    """config.json, tokenizer and image settings of a tiny backbone; no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = Ids(tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    if family == "fast_vlm":
        (folder / "config.json").write_text(json.dumps(fast_vlm(ids)))
    else:
        FAMILIES[family](ids).save_pretrained(folder)
    if family in SETTINGS:
        settings = json.dumps(SETTINGS[family])
        (folder / "preprocessor_config.json").write_text(settings)
    return folder


def cameras(family: str, *, rows: int = 2, count: int = 2) -> Tensor:
    """Random images of the vision tower's own size, uint8 [b, c, 3, h, w]."""
    generator = torch.Generator().manual_seed(3)
    height, width = (64, 64) if family == "florence2" else (28, 28)
    shape = (rows, count, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@functools.cache
def saved(family: str) -> Path:
    """A folder with random weights, written once for all tests; they only read it."""
    root = Path(tempfile.mkdtemp(prefix="fastvla_vlm_"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    torch.manual_seed(0)
    made = VLMBackbone.from_config(write_folder(root / "made", family))
    with torch.no_grad():
        # As they come, biases and norms hide what is forgotten of them.
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    made.save_pretrained(root / "saved")
    return root / "saved"


def loaded(family: str, **options: Any) -> TransformersBackbone:
    """A backbone of `saved(family)`."""
    backbone = VLMBackbone.from_pretrained(saved(family), **options)
    assert isinstance(backbone, TransformersBackbone)
    return backbone


def assert_same(found: VLMBackbone, expected: VLMBackbone) -> None:
    """Refuse weights that differ by a bit, or have other names."""
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Refuse results of the same weights that differ by more than the order of sums."""
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
