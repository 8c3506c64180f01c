"""The planner as a server of the Model Context Protocol (MCP): eight tools for models and their hosts.

`catalogue.py` says what the tools are called and take, `service.py` does what they say, `server.py` speaks the protocol
by way of the official SDK, and `http.py` guards the way in from the network. Nothing heavy is imported before a tool
needs it. Texts that come in are data: they are compared, cut and counted, never followed.
"""
