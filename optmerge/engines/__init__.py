"""Responses from a mounted candidate; one module an engine, found by name."""

from optmerge.engines.engine import Bench, Candidate, Engine, Generate, LogLikelihood, Message, Request, Response

__all__ = ["Bench", "Candidate", "Engine", "Generate", "LogLikelihood", "Message", "Request", "Response"]
