"""A draft for speculative decoding: what followed the same few tokens most often in training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json, write_json

FILE = "ngram_draft.json"


class NgramDraft:
    """Guesses from the longest context that it has seen.

    Args:
        order: Longest context, in tokens.
        table: Contexts, of 1 to `order` tokens, to the token that followed most often.
    """

    def __init__(self, *, order: int, table: dict[tuple[int, ...], int]) -> None:
        self.order = order
        self._table = table

    @classmethod
    def fit(cls, sequences: Iterable[Sequence[int]], *, order: int = 4) -> NgramDraft:
        """Count what follows what in sequences of tokens, such as the training set's actions."""
        followers: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for sequence in sequences:
            for index in range(1, len(sequence)):
                for length in range(1, min(order, index) + 1):
                    followers[tuple(sequence[index - length : index])][sequence[index]] += 1
        # Of equally frequent followers the smaller token: the table depends on the data alone.
        table = {
            context: min(counts, key=lambda token: (-counts[token], token))
            for context, counts in followers.items()
        }
        return cls(order=order, table=table)

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """At most `count` further tokens; fewer where the context was never seen."""
        known, guesses = list(tokens[-self.order :]), list[int]()
        while len(guesses) < count:
            follower = self._follower(known)
            if follower is None:
                break
            guesses.append(follower)
            known = [*known, follower][-self.order :]
        return guesses

    def save(self, folder: Path) -> None:
        """Write FOLDER/ngram_draft.json."""
        rows = [[*context, token] for context, token in sorted(self._table.items())]
        write_json(folder / FILE, {"order": self.order, "rows": rows})

    def _follower(self, known: Sequence[int]) -> int | None:
        for start in range(len(known)):
            found = self._table.get(tuple(known[start:]))
            if found is not None:
                return found
        return None


def load_ngram_draft(folder: Path) -> NgramDraft | None:
    """Read FOLDER/ngram_draft.json; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        rows = [tuple(map(int, row)) for row in data["rows"]]
        order = int(data["order"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error!r}", mend="delete it, or fit the draft again"
        ) from error
    return NgramDraft(order=order, table={row[:-1]: row[-1] for row in rows if row})
