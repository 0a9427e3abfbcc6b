"""Transformers called the ordinary way: its own image processors, prompts written out by hand.

Nothing of the package under test is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer
from torch import Tensor

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_QWEN_CAMERA = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
_SMOL_CAMERA = "<fake_token_around_image><global-img>" + "<image>" * 4 + "<fake_token_around_image>"
_GEMMA_CAMERA = "\n\n<start_of_image>" + "<image_soft_token>" * 4 + "<end_of_image>\n\n"

# Prompts of a text and c cameras of the tiny towers.
PROMPTS: dict[str, Callable[[str, int], str]] = {
    "qwen2_vl": lambda t, c: (
        f"{_SYSTEM}<|im_start|>user\n{_QWEN_CAMERA * c}{t}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "qwen3_vl": lambda t, c: (
        f"<|im_start|>user\n{_QWEN_CAMERA * c}{t}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "paligemma": lambda t, c: "<image>" * 16 * c + f"<bos>{t}\n",
    "internvl": lambda t, c: (
        "<|im_start|>user\n"
        + ("<img>" + "<IMG_CONTEXT>" * 4 + "</img>\n") * c
        + f"{t}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "llava": lambda t, c: "<s>USER: " + ("<image>" * 16 + "\n") * c + f"{t} ASSISTANT:",
    "llava_onevision": lambda t, c: (
        "<|im_start|>user " + "<image>" * 17 * c + f"\n{t}<|im_end|><|im_start|>assistant\n"
    ),
    "florence2": lambda t, c: "<image>" * 5 * c + f"<s>{t}</s>",
    "smolvlm": lambda t, c: f"<|im_start|>User:{_SMOL_CAMERA * c}{t}<end_of_utterance>\nAssistant:",
    "gemma3": lambda t, c: (
        f"<bos><start_of_turn>user\n{_GEMMA_CAMERA * c}{t}<end_of_turn>\n<start_of_turn>model\n"
    ),
}
PROMPTS["qwen2_5_vl"] = PROMPTS["qwen2_vl"]
PROMPTS["paligemma2"] = PROMPTS["paligemma"]
PROMPTS["idefics3"] = PROMPTS["smolvlm"]

ENDS = {
    "qwen2_vl": "<|im_end|>",
    "qwen2_5_vl": "<|im_end|>",
    "qwen3_vl": "<|im_end|>",
    "paligemma": "<eos>",
    "paligemma2": "<eos>",
    "internvl": "<|im_end|>",
    "llava": "</s>",
    "llava_onevision": "<|im_end|>",
    "florence2": "</s>",
    "smolvlm": "<end_of_utterance>",
    "idefics3": "<end_of_utterance>",
    "gemma3": "<end_of_turn>",
}
# What stands between the prompt and an answer.
STARTS = {"llava": " ", "smolvlm": " ", "idefics3": " ", "florence2": "<s>"}
PLACEHOLDERS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|image_pad|>"),
    "internvl": "<IMG_CONTEXT>",
    "gemma3": "<image_soft_token>",
}


def network(folder: Path) -> Any:
    """The model as Transformers loads it."""
    return hf.AutoModelForImageTextToText.from_pretrained(folder).eval()


def inputs(
    family: str,
    folder: Path,
    pixels: Tensor,
    texts: Sequence[str],
    *,
    answers: Sequence[str] | None = None,
    left: bool = False,
) -> dict[str, Any]:
    """What the model's forward takes for these cameras, uint8 [b, c, 3, h, w], and texts."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    count = pixels.shape[1]
    prompts = [_ids(tokenizer, PROMPTS[family](text, count)) for text in texts]
    said = [
        _ids(tokenizer, STARTS.get(family, "") + answer + ENDS[family]) for answer in answers or ()
    ]
    rows = prompts
    if said and family != "florence2":
        rows = [prompt + answer for prompt, answer in zip(prompts, said)]
    ids, mask = _padded(rows, left=left)
    image = ids == tokenizer.token_to_id(PLACEHOLDERS.get(family, "<image>"))
    found = {"input_ids": ids, "attention_mask": mask, **_pixels(family, pixels)}
    if family.startswith("qwen"):
        found["mm_token_type_ids"] = image.int()
    if family.startswith("paligemma"):
        found["token_type_ids"] = torch.zeros_like(ids)
    if family == "gemma3":
        found["token_type_ids"] = image.long()
    if said:
        found["labels"] = _labels(family, ids, prompts, said)
        if family.startswith("paligemma"):
            found["token_type_ids"] = (found["labels"] != -100).long()
    return found


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _padded(rows: list[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    ids = [pad + row if left else row + pad for row, pad in zip(rows, pads)]
    ones = [[1] * len(row) for row in rows]
    mask = [pad + one if left else one + pad for one, pad in zip(ones, pads)]
    return torch.tensor(ids), torch.tensor(mask)


def _labels(family: str, ids: Tensor, prompts: list[list[int]], said: list[list[int]]) -> Tensor:
    if family == "florence2":
        rows = [torch.tensor(row) for row in said]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(zip(prompts, said)):
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return labels


def _pixels(family: str, pixels: Tensor) -> dict[str, Any]:
    rows, count, _, edge, _ = pixels.shape
    images = [image.permute(1, 2, 0).numpy() for image in pixels.flatten(0, 1)]
    nested = [images[row * count : (row + 1) * count] for row in range(rows)]
    square = {"height": edge, "width": edge}
    if family.startswith("qwen"):
        colours = HALF if family == "qwen3_vl" else {}
        bounds = {"shortest_edge": 28 * 28, "longest_edge": 64 * 64}
        return _processed("qwen2_vl", images, patch_size=7, size=bounds, **colours)
    if family == "llava_onevision":
        found = _processed(family, nested, size=square, **HALF)
        return {**found, "batch_num_images": [count] * rows}
    if family in ("smolvlm", "idefics3"):
        longest = {"longest_edge": edge}
        return _processed(
            family,
            nested,
            size=longest,
            max_image_size=longest,
            do_image_splitting=False,
            return_row_col_info=False,
        )
    if family == "gemma3":
        found = _processed(family, images, size=square)
        return {"pixel_values": found["pixel_values"]}
    if family == "llava":
        return _processed("clip", images, size={"shortest_edge": edge}, crop_size=square)
    if family == "florence2":
        return _processed("clip", images, size=square, do_center_crop=False, **IMAGENET)
    if family == "internvl":
        return _processed("got_ocr2", images, size=square, keys=("pixel_values",), **IMAGENET)
    return _processed("siglip", images, size=square, **HALF)


_CLASSES = {
    "qwen2_vl": "Qwen2VL",
    "llava_onevision": "LlavaOnevision",
    "smolvlm": "SmolVLM",
    "idefics3": "Idefics3",
    "gemma3": "Gemma3",
    "clip": "CLIP",
    "got_ocr2": "GotOcr2",
    "siglip": "Siglip",
}


def image_processor(name: str, **settings: Any) -> Any:
    """An image processor of Transformers that runs on Pillow."""
    module = import_module(f"transformers.models.{name}.image_processing_pil_{name}")
    return getattr(module, f"{_CLASSES[name]}ImageProcessorPil")(**settings)


def _processed(
    name: str, images: Any, *, keys: Sequence[str] | None = None, **settings: Any
) -> dict[str, Any]:
    found = dict(image_processor(name, **settings)(images, return_tensors="pt"))
    return found if keys is None else {key: found[key] for key in keys}
