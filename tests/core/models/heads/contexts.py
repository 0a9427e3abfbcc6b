"""What a small backbone would give a head, from random numbers; and a FAST tokenizer of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, trainers
from torch import Tensor

from fastvla_core.layers.attention import AttentionShape, KeyValue
from fastvla_core.layers.rope import RopeTable, rope_table
from fastvla_core.models.heads.interface import ActionHead, ActionSizes, BackboneOffer, Context
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer, load_fast_tokenizer
from fastvla_core.models.registry import ACTION_HEADS

ROWS, TOKENS, WIDTH, DEPTH = 3, 6, 24, 4
SHAPE = AttentionShape(heads=4, kv_heads=2, head_dim=8)
OFFER = BackboneOffer(width=WIDTH, depth=DEPTH, attention=SHAPE)
SIZES = ActionSizes(steps=5, action=3, state=4)
SMALL: dict[str, Any] = {"depth": 2, "width": 32, "mlp_width": 48, "heads": 4}
HEADS = ("flow", "regression", "bins", "fast")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(positions_bn: Tensor, layer: int) -> RopeTable:
    """Each layer another base, as Gemma 3 has."""
    rows = [rope_table(row, head_dim=SHAPE.head_dim, base=100.0 + layer) for row in positions_bn]
    return RopeTable(
        torch.stack([row.cos_tk for row in rows])[:, None],
        torch.stack([row.sin_tk for row in rows])[:, None],
    )


def context(*, seed: int = 0, requires_grad: bool = False, rows: int = ROWS) -> Context:
    def leaf(*shape: int, number: int) -> Tensor:
        return random(*shape, seed=100 * seed + number).requires_grad_(requires_grad)

    hidden = {i: leaf(rows, TOKENS, WIDTH, number=i) for i in range(DEPTH)}
    key_values = {
        i: KeyValue(
            leaf(rows, SHAPE.kv_heads, TOKENS, SHAPE.head_dim, number=20 + i),
            leaf(rows, SHAPE.kv_heads, TOKENS, SHAPE.head_dim, number=40 + i),
        )
        for i in range(DEPTH)
    }
    lengths = torch.tensor([TOKENS, TOKENS - 2, TOKENS - 1])[:rows]
    return Context(
        hidden=hidden,
        key_values=key_values,
        mask_bp=torch.arange(TOKENS) < lengths[:, None],
        next_position_b=lengths,
        rotation=rotation,
        state_bs=leaf(rows, SIZES.state, number=60),
    )


def make_fast_tokenizer(folder: Path, *, seed: int = 0) -> Path:
    """A byte-pair encoding of quantised cosine coefficients, in the files that FAST has."""
    draws = np.random.default_rng(seed)
    low, high = -40, 40
    letters = [chr(number) for number in range(high - low + 1)]
    texts = [
        "".join(chr(min(max(round(float(n)) - low, 0), high - low)) for n in row)
        for row in 4 * draws.standard_normal((200, 12))
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=120, initial_alphabet=letters, special_tokens=[], show_progress=False
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "processor_config.json").write_text(json.dumps({"scale": 10, "min_token": low}))
    return folder


def fast_tokenizer(folder: Path) -> FastTokenizer:
    return load_fast_tokenizer(make_fast_tokenizer(folder))


def make_head(
    kind: str,
    *,
    tokenizer: FastTokenizer | None = None,
    sizes: ActionSizes = SIZES,
    offer: BackboneOffer = OFFER,
    seed: int = 0,
    **options: Any,
) -> Any:
    head: type[ActionHead] = ACTION_HEADS.load(kind)
    given: dict[str, Any] = {**SMALL, **options}
    if kind == "fast":
        given.setdefault("action_tokenizer", "here")
        given.setdefault("max_tokens", 40)
    if kind == "flow":
        given.setdefault("inference_steps", 3)
    make: Any = head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(
            head.options_type(**given), offer=offer, sizes=sizes, action_tokenizer=tokenizer
        )
