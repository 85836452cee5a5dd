"""Objectives: what to do to the weighted tokens. Every module here is imported by the registry."""
