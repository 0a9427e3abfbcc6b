"""A language model's token table in the host's memory: a large vocabulary takes none of a GPU's.

Shapes: b batch, l language tokens, w width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fastvla_core.errors import PolicyError

TokenTablePlace = Literal["device", "host"]


class HostEmbedding(nn.Embedding):
    """An embedding that stays on the CPU wherever its network goes."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HostEmbedding:
        # `.to(device, dtype)` changes its type alone.
        self.weight.data = self.weight.data.to(fn(self.weight.data.new_empty(0)).dtype)
        return self


def keep_on_host(model: nn.Module) -> None:
    """Have the token table of a network, which is on the CPU, stay there.

    Raises:
        PolicyError: it has none that is read for words alone, and worth it.
    """
    name = token_table_of(model)
    if name is None:
        raise PolicyError(
            f"{type(model).__name__} cannot leave its token table with the host",
            mend="leave out token_table; pi0 and pi0.5 can",
        )
    table: Any = model.get_submodule(name)
    model.set_submodule(name, HostEmbedding(*table.weight.shape, _weight=table.weight))


def token_table_of(model: nn.Module) -> str | None:
    """Name of the embedding that can stay with the host; None where there is none."""
    return getattr(model, "token_table", None)


def with_words(model: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A batch with its embedded tokens ("words", [b, l, w]) where the host has the table.

    They are looked up ahead of the request, because a captured graph cannot wait for the host.
    """
    name = token_table_of(model)
    if name is None or not isinstance(model.get_submodule(name), HostEmbedding):
        return batch
    tokens = batch["tokens"]
    return {**batch, "words": model.language_model.embed(tokens.cpu()).to(tokens.device)}
