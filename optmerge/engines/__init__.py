"""Responses from a mounted candidate; one module an engine, found by name."""

from optmerge.engines.engine import Candidate, Engine, Generate, Request, Response

__all__ = ["Candidate", "Engine", "Generate", "Request", "Response"]
