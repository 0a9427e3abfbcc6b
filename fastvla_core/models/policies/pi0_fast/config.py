"""Sizes and conventions of pi0-FAST; read from LeRobot's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastvla_core.errors import CheckpointError
from fastvla_core.models.lerobot.config import typed_fields
from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.policies.pi.config import PaliGemmaConfig, common_values


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionWords:
    """Token ids around the actions.

    Attributes:
        bos: Begins them.
        prefix: "Action: ".
        end: "|".
        last: The id of FAST token 0; FAST token t is `last - t`.
    """

    bos: int
    prefix: tuple[int, ...]
    end: int
    last: int


def action_words(tokenizer: TextTokenizer, *, skip: int) -> ActionWords:
    """The ids in a language model's vocabulary.

    Args:
        skip: Entries at the vocabulary's end that are not used for actions.
    """
    return ActionWords(
        bos=tokenizer.special_id("bos_token"),
        prefix=tuple(tokenizer.plain_ids("Action: ")),
        end=tokenizer.token_id("|"),
        last=tokenizer.vocab_size - 1 - skip,
    )


@dataclass(frozen=True, kw_only=True)
class Pi0FastConfig(PaliGemmaConfig):
    """Everything that fixes a pi0-FAST except its weights and statistics.

    Attributes:
        words: Token ids around the actions.
        max_action_tokens: Longest tokenised chunk in training.
        max_decoding_steps: Tokens that are generated at most.
        fast_skip_tokens: Entries at the vocabulary's end that are not used for actions.
        validate_action_token_prefix: Refuse what does not begin with "Action:".
        draft_width: Tokens that a draft guesses per pass.
    """

    fits_any_robot: ClassVar[bool] = True

    words: ActionWords
    text_tokenizer_name: str = "google/paligemma-3b-pt-224"
    action_tokenizer_name: str = "lerobot/fast-action-tokenizer"
    max_action_tokens: int = 256
    max_decoding_steps: int = 256
    fast_skip_tokens: int = 128
    validate_action_token_prefix: bool = True
    draft_width: int = 8

    @property
    def noise_shape(self) -> tuple[int, int]:
        """There is no noise: decoding is greedy."""
        return 0, 0


def read_config(
    data: Mapping[str, Any], *, folder: Path, files: LocalFiles, words: ActionWords
) -> Pi0FastConfig:
    """Read config.json.

    Args:
        words: From `action_words`.
    Raises:
        CheckpointError: a key is missing or wrong, or asks for what does not exist.
    """
    source = str(folder / "config.json")
    given, _ = common_values(data, folder=folder, files=files)
    given["words"] = words
    config = Pi0FastConfig(**typed_fields(Pi0FastConfig, data, source=source, given=given))
    if data.get("temperature", 0.0) != 0.0:
        raise CheckpointError(
            f"{source}: 'temperature' is {data['temperature']}",
            mend="set it to 0: actions are decoded greedily, the same every time",
        )
    if config.n_action_steps > config.chunk_size or config.max_decoding_steps < 1:
        raise CheckpointError(
            f"{source}: 'n_action_steps' is above 'chunk_size', or nothing is decoded",
            mend="correct 'n_action_steps' and 'max_decoding_steps'",
        )
    return config
