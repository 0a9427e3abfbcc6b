"""The published backbones: names, sizes, licences, and where their weights are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_QWEN_RESEARCH = "Qwen Research License (no commercial use)"
_QWEN = "Qwen License"
_GEMMA = "Gemma terms of use"
_LLAMA = "Llama 2 Community License"
_APPLE = "Apple ML Research License (research only)"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneEntry:
    """One published backbone.

    Attributes:
        repo: Repository on the Hugging Face Hub, in the layout of Transformers.
        parameters: In billions, as published.
        licence: Of the weights.
        aliases: Other names.
    """

    repo: str
    parameters: float
    licence: str
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        also = f"; also {', '.join(self.aliases)}" if self.aliases else ""
        return f"{self.parameters:g} B parameters, {self.licence}, {self.repo}{also}"


def _sizes(
    prefix: str, repo: str, licence: str, sizes: Mapping[str, float]
) -> Iterator[tuple[str, BackboneEntry]]:
    """Entries of one series; "{}" in `repo` is the size as the repository writes it."""
    for size, parameters in sizes.items():
        yield (
            f"{prefix}-{size.lower()}",
            BackboneEntry(repo=repo.format(size), parameters=parameters, licence=licence),
        )


def _one(
    name: str, repo: str, parameters: float, licence: str, *aliases: str
) -> tuple[str, BackboneEntry]:
    return name, BackboneEntry(repo=repo, parameters=parameters, licence=licence, aliases=aliases)


PUBLISHED: dict[str, BackboneEntry] = dict(
    [
        *_sizes("qwen2-vl", "Qwen/Qwen2-VL-{}-Instruct", "Apache-2.0", {"2B": 2.21, "7B": 8.29}),
        _one("qwen2-vl-72b", "Qwen/Qwen2-VL-72B-Instruct", 73.4, _QWEN),
        _one("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", 3.75, _QWEN_RESEARCH),
        *_sizes(
            "qwen2.5-vl", "Qwen/Qwen2.5-VL-{}-Instruct", "Apache-2.0", {"7B": 8.29, "32B": 33.5}
        ),
        _one("qwen2.5-vl-72b", "Qwen/Qwen2.5-VL-72B-Instruct", 73.4, _QWEN),
        *_sizes(
            "qwen3-vl",
            "Qwen/Qwen3-VL-{}-Instruct",
            "Apache-2.0",
            {"2B": 2.13, "4B": 4.44, "8B": 8.77, "32B": 33.4},
        ),
        *_sizes(
            "paligemma",
            "google/paligemma-3b-pt-{}",
            _GEMMA,
            {"224": 2.92, "448": 2.92, "896": 2.93},
        ),
        _one("paligemma-mix-224", "google/paligemma-3b-mix-224", 2.92, _GEMMA),
        _one("paligemma-mix-448", "google/paligemma-3b-mix-448", 2.92, _GEMMA),
        *(
            entry
            for size, parameters in (("3b", 3.03), ("10b", 9.66), ("28b", 27.7))
            for entry in _sizes(
                f"paligemma2-{size}",
                f"google/paligemma2-{size}-pt-{{}}",
                _GEMMA,
                dict.fromkeys(("224", "448", "896"), parameters),
            )
        ),
        *_sizes(
            "internvl3",
            "OpenGVLab/InternVL3-{}-hf",
            "MIT; language model Qwen2.5: Apache-2.0",
            {"1B": 0.94, "2B": 2.09, "8B": 7.94, "14B": 15.1, "38B": 38.4},
        ),
        _one("internvl3-78b", "OpenGVLab/InternVL3-78B-hf", 78.4, f"MIT; language model: {_QWEN}"),
        *_sizes(
            "internvl3.5",
            "OpenGVLab/InternVL3_5-{}-HF",
            "Apache-2.0",
            {"1B": 1.06, "2B": 2.35, "4B": 4.73, "8B": 8.53, "14B": 15.1, "38B": 38.4},
        ),
        *_sizes("llava-1.5", "llava-hf/llava-1.5-{}-hf", _LLAMA, {"7b": 7.06, "13b": 13.4}),
        *_sizes(
            "llava-onevision",
            "llava-hf/llava-onevision-qwen2-{}-ov-hf",
            "Apache-2.0",
            {"0.5b": 0.89, "7b": 8.03},
        ),
        _one("llava-onevision-72b", "llava-hf/llava-onevision-qwen2-72b-ov-hf", 73.2, _QWEN),
        *_sizes(
            "florence-2",
            "florence-community/Florence-2-{}",
            "MIT",
            {"base": 0.23, "large": 0.77, "base-ft": 0.23, "large-ft": 0.77},
        ),
        *_sizes(
            "smolvlm",
            "HuggingFaceTB/SmolVLM-{}-Instruct",
            "Apache-2.0",
            {"256M": 0.256, "500M": 0.507},
        ),
        _one("smolvlm-2.2b", "HuggingFaceTB/SmolVLM-Instruct", 2.25, "Apache-2.0", "smolvlm"),
        *_sizes(
            "smolvlm2",
            "HuggingFaceTB/SmolVLM2-{}-Video-Instruct",
            "Apache-2.0",
            {"256M": 0.256, "500M": 0.507},
        ),
        _one("smolvlm2-2.2b", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", 2.25, "Apache-2.0"),
        _one("idefics3-8b", "HuggingFaceM4/Idefics3-8B-Llama3", 8.46, "Apache-2.0"),
        *_sizes("gemma3", "google/gemma-3-{}-it", _GEMMA, {"4b": 4.3, "12b": 12.2, "27b": 27.4}),
        *_sizes(
            "fastvlm", "KamilaMila/FastVLM-{}", _APPLE, {"0.5B": 0.76, "1.5B": 1.91, "7B": 7.76}
        ),
    ]
)
