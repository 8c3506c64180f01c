"""Loading what a call needs: agents, skills and tools by hash, on demand or ahead, and a way back to all the rest."""

from apportion.compression.loading.forms import brief_form, first_sentence, line_form
from apportion.compression.loading.loader_tool import LOAD_TOOL, Loader, load_schema, loader_tokens
from apportion.compression.loading.outline import Part, outline, parts_of, restore
from apportion.compression.loading.preload import Loaded, PreloadCounts, Preloader
from apportion.compression.loading.registry import MAX_BYTES, Registry
from apportion.compression.loading.tool_lists import Tool, read_tools
from apportion.compression.loading.types import Changes, Entry, EntryKind, LoadLimits, Skipped

__all__ = [
    "LOAD_TOOL",
    "MAX_BYTES",
    "Changes",
    "Entry",
    "EntryKind",
    "LoadLimits",
    "Loaded",
    "Loader",
    "Part",
    "PreloadCounts",
    "Preloader",
    "Registry",
    "Skipped",
    "Tool",
    "brief_form",
    "first_sentence",
    "line_form",
    "load_schema",
    "loader_tokens",
    "outline",
    "parts_of",
    "read_tools",
    "restore",
]
