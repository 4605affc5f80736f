"""Long texts of a conversation as documents: their KV is kept, moved and recalled as that of a screenshot is."""

from __future__ import annotations

from collections.abc import Sequence

from kamera_agent.config import Settings
from kamera_agent.runtime.families.base import Family
from kamera_agent.window.content import Content, DocumentContent, TextContent

# In characters: some 400 tokens. Computing less costs about as much as planning to keep it.
LONG = 1536


def keep_long_texts(contents: Sequence[Content], system: str, family: Family, settings: Settings) -> list[Content]:
    """The contents after a system prompt, with documents in the place of long texts."""
    kept: list[Content] = []
    before = "system" if system else None
    for content in contents:
        if isinstance(content, TextContent) and len(content.text) >= LONG:
            begins = content.new_turn or content.role != before
            # A document would not take the space that the markup leaves to the first word.
            spaced = begins and family.chat.leaves_space(before, content.role)
            if not spaced and _has_rank(content.text, family, settings):
                content = DocumentContent(content.text, content.role, content.new_turn)
        kept.append(content)
        before = content.role
    return kept


def _has_rank(text: str, family: Family, settings: Settings) -> bool:
    """Whether a document has as many tokens as the rank that its patches must have."""
    return not isinstance(settings.rank, int) or len(family.tokens.encode(text)) >= settings.rank
