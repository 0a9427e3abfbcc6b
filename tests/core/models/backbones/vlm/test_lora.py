from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError, QuantError
from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.interface import LoraOptions, VLMBackbone

from . import tiny
from .tiny import ANSWERS, FAMILIES, TEXTS

every_family = pytest.mark.parametrize("family", FAMILIES)


def last_hidden(backbone: VLMBackbone, family: str) -> Tensor:
    with torch.no_grad():
        images = backbone.encode_images(tiny.cameras(family))
        return backbone(backbone.embed(images, TEXTS), layers=()).last_hidden_bpd


def trained(family: str, **options: object) -> TransformersBackbone:
    """A backbone with adapters after a few steps."""
    torch.manual_seed(1)
    backbone = tiny.loaded(family, lora=LoraOptions(rank=2, alpha=8.0), **options)
    optimizer = torch.optim.Adam([p for p in backbone.parameters() if p.requires_grad], lr=0.02)
    images = backbone.encode_images(tiny.cameras(family))
    losses: list[float] = []
    for _ in range(4):
        prefix = backbone.embed(images, TEXTS, answers=ANSWERS)
        loss = backbone(prefix, layers=(), labels=prefix.labels).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    return backbone


@every_family
def test_adapters_train_save_load_and_merge(family: str, tmp_path: Path):
    plain = tiny.loaded(family)
    backbone = trained(family)
    kept = {n: p for n, p in backbone.network.named_parameters() if ".lora_" not in n}
    before = dict(plain.network.named_parameters())
    assert all(torch.equal(p, before[n.replace(".base_layer", "")]) for n, p in kept.items())
    expected = last_hidden(backbone, family)
    assert not torch.allclose(expected, last_hidden(plain, family), atol=1e-4)

    backbone.save_pretrained(tmp_path / "adapter")
    names = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    again = VLMBackbone.from_pretrained(tmp_path / "adapter")
    tiny.assert_same(again, backbone)
    tiny.assert_close(last_hidden(again, family), expected)
    assert all((".lora_" in n) == p.requires_grad for n, p in again.named_parameters())

    again.merge_lora()
    torch.testing.assert_close(last_hidden(again, family), expected, atol=1e-4, rtol=1e-4)
    again.save_pretrained(tmp_path / "merged")
    merged = VLMBackbone.from_pretrained(tmp_path / "merged")
    tiny.assert_same(merged, again)
    assert merged.state_dict().keys() == plain.state_dict().keys()


# peft asks Transformers for something by a name that Transformers gave up.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_peft_loads_the_adapter(tmp_path: Path):
    peft = pytest.importorskip("peft")
    backbone = trained("paligemma")
    backbone.save_pretrained(tmp_path)
    network = peft.PeftModel.from_pretrained(tiny.loaded("paligemma").network, str(tmp_path))
    prefix = backbone.embed(None, TEXTS)
    given = {"input_ids": prefix.ids_bp, "token_type_ids": torch.zeros_like(prefix.ids_bp)}
    with torch.no_grad():
        theirs, ours = (n(**given).logits for n in (network, backbone.network))
    tiny.assert_close(theirs, ours)


def test_an_adapter_goes_on_a_quantised_backbone(tmp_path: Path):
    backbone = trained("smolvlm", quantization="nf4")
    backbone.save_pretrained(tmp_path)
    again = VLMBackbone.from_pretrained(tmp_path, quantization="nf4")
    tiny.assert_same(again, backbone)
    with pytest.raises(QuantError, match="is quantised: an adapter cannot be merged"):
        again.merge_lora()


def test_parts_and_layers_are_chosen():
    lora = LoraOptions(rank=2, parts=("vision", "language"), targets=("q_proj", "v_proj"))
    backbone = tiny.loaded("paligemma", lora=lora)
    names = {n.split(".lora_")[0] for n, p in backbone.network.named_parameters() if "lora" in n}
    assert {name.rpartition(".")[2] for name in names} == {"q_proj", "v_proj"}
    assert {name.split(".")[1] for name in names} == {"vision_tower", "language_model"}


def test_the_vocabulary_gets_no_adapter():
    backbone = tiny.loaded("llava", lora=LoraOptions(rank=2))
    assert not any("lm_head.lora" in name for name, _ in backbone.named_parameters())


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(CheckpointError, match="is called attention_weights"):
        tiny.loaded("paligemma", lora=LoraOptions(targets=("attention_weights",)))


def test_an_adapter_of_another_backbone_is_refused(tmp_path: Path):
    trained("smolvlm").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tiny.saved("llava"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        VLMBackbone.from_pretrained(tmp_path)


def test_an_adapter_gets_no_second_one(tmp_path: Path):
    trained("smolvlm").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is an adapter already"):
        VLMBackbone.from_pretrained(tmp_path, lora=LoraOptions())
