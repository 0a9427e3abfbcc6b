"""Observations to the batch of a composed policy: its backbone reads the words itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastvla_core.errors import ObservationError
from fastvla_core.models.policies.flow_vla.processor import RobotProcessor


class VLAProcessor(RobotProcessor):
    """Hands instructions over as they are."""

    @property
    def vocabulary(self) -> str:
        """The backbone's, which belongs to its weights."""
        return ""

    def encode(self, texts: Sequence[str]) -> dict[str, Any]:
        """`texts`, one instruction per row.

        Raises:
            ObservationError: a text is empty, or no valid Unicode.
        """
        for text in texts:
            if not text.strip():
                raise ObservationError(
                    "the instruction is empty", mend="give a task in words, such as 'pick the cube'"
                )
            try:
                text.encode()
            # A terminal hands over bytes that are no UTF-8 as halves of characters.
            except UnicodeEncodeError as error:
                raise ObservationError(
                    f"the instruction {text!r} is no valid text", mend="write it in UTF-8"
                ) from error
        return {"texts": tuple(texts)}
