"""Core's own parts, registered through the door that plugins use."""

from __future__ import annotations
