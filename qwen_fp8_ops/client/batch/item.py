"""What goes into a batch and what comes out of it, one record for each item.

An item is what is asked, the recipe is how all of them are asked, an outcome is what came of one. An outcome counts for an item as
long as nothing that decides the answer has changed: the recipe, the item's own prompt, and the bytes of its images and videos.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

from qwen_fp8_ops.client.answers import Usage
from qwen_fp8_ops.client.media_files import URL
from qwen_fp8_ops.client.media_types import Kind


@dataclass(frozen=True, slots=True)
class Source:
    """One image or video: ``path`` is a file of this machine, or an http, https or data URL, which is passed on as it is."""

    path: str
    kind: Kind = "image"

    @property
    def is_url(self) -> bool:
        return URL.match(self.path) is not None


@dataclass(frozen=True, slots=True)
class Item:
    """One request to make. It holds no pixels, so that a million of them cost nothing before their turn comes.

    Args:
        id: unique among the items of a run and the same in every run: a relative path, a question's id.
        media: stand before the prompt in the message, in this order.
        seed: for this item instead of the recipe's, so that one question can be asked several times.
    """

    id: str
    prompt: str
    media: tuple[Source, ...] = ()
    seed: int | None = None


class Inputs(Protocol):
    """The items of a run in the order of its result. Every iteration begins anew and gives the same ones."""

    def __iter__(self) -> Iterator[Item]: ...

    def count(self) -> int:
        """How many there are; asked in a thread of its own, as it may take as long as an iteration."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How every item is asked. It stands in the journal's first line, and a run with another one does not go on with that journal.

    Args:
        task: "caption", "qa".
        model: the name the server is asked for.
        prompt: what all items have in common, as people know it; the text that is sent is the item's.
        system: a system message; empty for none.
        sampling: goes into every request as it is: max_tokens, temperature, top_p, seed, ... None is left out.
        max_pixels: larger images are reduced to that.
        details: what else decides the answers, in words of the task.
    """

    task: str
    model: str
    prompt: str
    system: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_pixels: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "sampling": {name: value for name, value in self.sampling.items() if value is not None}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Of another version it may hold more, or less."""
        return cls(**{"task": "", "model": "", "prompt": ""} | {name: value[name] for name in value if name in cls.__dataclass_fields__})

    def flat(self) -> dict[str, Any]:
        """For a person who asks what differs: each parameter under its own name."""
        value = self.as_json()
        return {**{name: value[name] for name in ("task", "model", "prompt", "system", "max_pixels")}, **value["sampling"], **value["details"]}

    @cached_property
    def _text(self) -> str:
        return json.dumps(self.as_json(), sort_keys=True)

    def asked(self, item: Item) -> str:
        """Names the request without its media: 32 hexadecimal digits."""
        value = [self._text, item.prompt, item.seed, *((source.kind, source.path if source.is_url else "") for source in item.media)]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Print:
    """The fingerprint of one file: its content, and by size and time (nanoseconds) the hint that the content is still the same."""

    sha256: str
    size_bytes: int
    mtime_ns: int

    def like(self, other: Print) -> bool:
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. ``code`` is one of client.failures or client.media_files; ``status`` the HTTP status, if there was one."""

    code: str
    message: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item: an answer, or a failure and no answer.

    Args:
        asked: ``Recipe.asked`` of the item.
        prints: one for each media of the item; empty when a file could not be read.
        answer: without the thinking, as the model wrote it.
        seconds: of the last try, from sending to the whole answer.
        tries: requests that the server took; a service that was away is no try.
    """

    id: str
    asked: str
    prints: tuple[Print, ...] = ()
    answer: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    seconds: float = 0.0
    tries: int = 1
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None

    @property
    def truncated(self) -> bool:
        """The token limit cut it."""
        return self.ok and self.finish_reason == "length"

    @property
    def empty(self) -> bool:
        """Nothing but thinking, or nothing at all."""
        return self.ok and not self.answer.strip()

    def as_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"id": self.id, "asked": self.asked}
        if self.prints:
            value["files"] = [[found.sha256, found.size_bytes, found.mtime_ns] for found in self.prints]
        if self.failure:
            value["failure"] = asdict(self.failure)
        else:
            value |= {"answer": self.answer, "reasoning": self.reasoning, "finish_reason": self.finish_reason}
            value["usage"] = [self.usage.prompt_tokens, self.usage.completion_tokens] if self.usage else None
        return {**value, "seconds": round(self.seconds, 3), "tries": self.tries}

    @classmethod
    def from_json(cls, value: Any) -> Outcome | None:
        """None when the value is not an outcome: damaged, or of another version."""
        try:
            prints = tuple(Print(str(sha256), int(size), int(time)) for sha256, size, time in value.get("files", ()))
            common: dict[str, Any] = {"id": str(value["id"]), "asked": str(value["asked"]), "prints": prints}
            common |= {"seconds": float(value["seconds"]), "tries": int(value["tries"])}
            if failure := value.get("failure"):
                return cls(**common, failure=Failure(str(failure["code"]), str(failure["message"]), failure.get("status")))
            usage = value.get("usage")
            return cls(
                **common,
                answer=str(value["answer"]),
                reasoning=str(value["reasoning"]),
                finish_reason=value["finish_reason"],
                usage=Usage(int(usage[0]), int(usage[1]), int(usage[0]) + int(usage[1])) if usage else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            return None
