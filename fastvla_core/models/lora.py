"""Which of a policy's layers are adapted, and how; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvla_core.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Which layers get an adapter, and how large it is.

    Attributes:
        rank: Of each adapter's two matrices.
        alpha: An adapter's product counts alpha / rank.
        dropout: Of an adapter's input, while it is trained.
        modules: Shell patterns on the dotted names of linear layers, such as "expert.*" or
            "*.self_attn.q_proj".
        whole: Shell patterns on modules that are trained whole and saved with the adapters.
        quantization: Pack the layers of the base: QLoRA.

    Raises:
        CheckpointError: a number is out of its range.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    modules: tuple[str, ...] = ("*",)
    whole: tuple[str, ...] = ()
    quantization: Literal["nf4", "int8"] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1 or not self.modules:
            raise CheckpointError(
                f"lora: rank {self.rank}, alpha {self.alpha:g}, dropout {self.dropout:g}, modules "
                f"{list(self.modules)} describe no adapter",
                mend="give rank >= 1, alpha > 0, 0 <= dropout < 1 and at least one pattern",
            )
