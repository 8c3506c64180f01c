"""The ways in: the command line, and tools for models (MCP)."""
