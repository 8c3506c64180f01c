"""The planner in Claude Code: hooks that are answered by the resident planner, and the plugin that asks it.

`hooks.py` says what each hook is answered, `agents.py` what becomes of sub-agents, `results.py` and `ingestion.py` how
results of tools become shorter before they enter the conversation, `compaction.py` what a summary has lost, and
`transcripts.py` reads what the client writes. `server.py` puts it behind HTTP. `plugin/` is what Claude Code installs;
its `shim.py` needs nothing but Python.

Nothing here stands in the way of the work: whatever goes wrong, the answer is `{}`, and the client goes on as it would
without us.
"""
