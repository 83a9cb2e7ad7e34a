"""Recommendations over HTTP: one server that owns its application and, on vLLM, shares the engine with OpenAI's routes.

`security` guards every route, `answers` does the work behind ours, `routes` is their HTTP, `openai` starts vLLM and its
routes beside them, `server` runs it all. Started by ``genrec serve``.
"""
