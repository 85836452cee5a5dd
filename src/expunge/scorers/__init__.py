"""Scorers: which tokens carry the knowledge. One file a family; every module here is imported by the registry."""
