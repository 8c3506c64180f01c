"""The resident planner: sessions, plans and hooks over HTTP, for orchestrators in any language.

`operations.py` says what there is (the OpenAPI description is made of it), `service.py` does it, `app.py` is the
application behind the guard of `doors/_guards.py`, and `server.py` runs it. What goes in and comes out are the records
of `messages.py`. Errors are `application/problem+json`, and never show a traceback or what was sent.

To mount a further route, add an `Operation` to `operations.OPERATIONS`, or pass one to `http_app(..., more=[...])`:

    def answer_hook(service: Service, given: dict[str, Any], path: Mapping[str, str]) -> dict[str, Any]:
        session = service.named_session(given["session_id"])
        return answer(session, given)

    Operation("POST", "/hooks/claude-code", "Answer a hook of Claude Code", answer_hook)

`takes=None` hands over the JSON object of the body as it is; a record (`takes=SomeRecord`) is checked first. The result
is a record, or a mapping that JSON can say. It runs in a thread, so it may block; an `ApportionError` becomes a problem
with its hint, and any other exception one that says nothing but its type.
"""
