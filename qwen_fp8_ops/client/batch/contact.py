"""The first word with a server: it is there, and these are its models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from qwen_fp8_ops.client.async_api import Endpoint
from qwen_fp8_ops.client.batch.door import Door, Locate
from qwen_fp8_ops.client.failures import bad_answer
from qwen_fp8_ops.client.request import Limits
from qwen_fp8_ops.errors import ConfigError


@dataclass(frozen=True)
class Contact:
    """``root`` is the API's address with its /v1."""

    endpoint: Endpoint
    root: str
    models: tuple[str, ...]

    def model(self, wanted: str | None, like: str | None = None) -> str:
        """The model to ask for: the one wanted; else ``like`` if the server has it; else its first.

        Raises:
            ConfigError: the server has not the one that is wanted (code ``no-such-model``).
            ApiError: it lists none.
        """
        if wanted is not None and wanted not in self.models:
            raise ConfigError(f"{self.root} has no model {wanted!r}", code="no-such-model", fix=f"It has: {', '.join(self.models)}")
        if not self.models:
            raise bad_answer(self.root, "it lists no model")
        return wanted or (like if like in self.models else None) or self.models[0]


def make_contact(locate: Locate, *, limits: Limits, patience_seconds: float, say: Callable[[str], None]) -> Contact:
    """Wait until the service takes requests.

    Raises:
        OpsError: it does not come in time; it does not take the key; it is something else.
    """

    async def ask() -> Contact:
        async with Door(locate, limits=limits, patience_seconds=patience_seconds, say=say) as door:
            await door.opened()
            models = await door.api.models()
            assert door.endpoint is not None  # the door is open
            return Contact(door.endpoint, door.api.root, models)

    return asyncio.run(ask())
