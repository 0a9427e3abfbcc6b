from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.backbones.vlm.interface import LoraOptions, Quantization, VLMBackbone
from fastvla_core.quant import memory_bytes, quantized_layers
from tests.bitsandbytes_defects import need_right_scales

from . import tiny
from .tiny import ANSWERS, FAMILIES, TEXTS

every_family = pytest.mark.parametrize("family", FAMILIES)
every_mode = pytest.mark.parametrize("mode", ["nf4", "int8"])


def last_hidden(backbone: VLMBackbone, family: str) -> Tensor:
    with torch.no_grad():
        images = backbone.encode_images(tiny.cameras(family))
        prefix = backbone.embed(images, TEXTS)
        return backbone(prefix, layers=()).last_hidden_bpd[prefix.mask_bp]


@every_mode
@every_family
def test_quantised_results_stay_close(family: str, mode: Quantization):
    full, packed = tiny.loaded(family), tiny.loaded(family, quantization=mode)
    cosine = torch.cosine_similarity(last_hidden(packed, family), last_hidden(full, family), dim=-1)
    assert float(cosine.mean()) > {"nf4": 0.88, "int8": 0.9995}[mode]
    names = quantized_layers(packed.network)
    assert any("q_proj" in name or "qkv" in name for name in names)
    projector = tuple(packed.part_names["projector"])
    assert not any(name.startswith(projector) or name == "lm_head" for name in names)
    assert packed.num_parameters() == full.num_parameters()
    assert memory_bytes(packed.network) < memory_bytes(full.network)


@every_mode
@every_family
def test_quantised_files_give_the_same_bits(family: str, mode: Quantization, tmp_path: Path):
    packed = tiny.loaded(family, quantization=mode)
    packed.save_pretrained(tmp_path)
    again = VLMBackbone.from_pretrained(tmp_path)
    tiny.assert_same(again, packed)
    tiny.assert_close(last_hidden(again, family), last_hidden(packed, family))
    pixels = tiny.cameras(family)
    assert again.generate(pixels, TEXTS, max_new_tokens=3) == packed.generate(
        pixels, TEXTS, max_new_tokens=3
    )


def test_a_folder_quantised_in_another_way_is_refused(tmp_path: Path):
    tiny.loaded("paligemma", quantization="nf4").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is quantised to nf4, not int8"):
        VLMBackbone.from_pretrained(tmp_path, quantization="int8")


def test_a_weight_missing_of_a_quantised_folder_is_named(tmp_path: Path):
    from fastvla_core.models.checkpoint import read_tensors, write_tensors

    tiny.loaded("llava", quantization="int8").save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path / "model.safetensors")
    del tensors["model.language_model.norm.weight"]
    write_tensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"'model\.language_model\.norm\.weight' is missing"):
        VLMBackbone.from_pretrained(tmp_path)


@every_mode
@every_family
def test_gradients_reach_adapters_on_quantised_layers(family: str, mode: Quantization):
    backbone = tiny.loaded(family, quantization=mode, lora=LoraOptions(rank=2))
    # An evaluation in between must not freeze anything, as it does in other libraries.
    last_hidden(backbone, family)
    backbone.train()
    images = backbone.encode_images(tiny.cameras(family))
    prefix = backbone.embed(images, TEXTS, answers=ANSWERS)
    loss = backbone(prefix, labels=prefix.labels).loss
    assert loss is not None
    loss.backward()
    trained = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained)
    reached = [n for n, p in trained.items() if ".lora_B." in n and p.grad is not None]
    assert len(reached) == sum(".lora_B." in name for name in trained)
    assert all(bool(trained[name].grad.any()) for name in reached)


def test_bitsandbytes_reads_what_is_written(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    need_right_scales()
    packed = tiny.loaded("qwen2_5_vl", quantization="nf4")
    packed.save_pretrained(tmp_path)
    network = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    layer = network.model.language_model.layers[0].mlp.gate_proj
    assert type(layer).__name__ == "Linear4bit"
    ids = packed.embed(None, TEXTS).ids_bp[:1]
    with torch.no_grad():
        theirs = network.model(ids).last_hidden_state
        ours = packed.network.model(ids).last_hidden_state
    assert float(torch.cosine_similarity(theirs.float(), ours, dim=-1).min()) > 0.999
