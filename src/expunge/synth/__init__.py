"""The built-in benchmark: fictitious people, text with gold spans, and the tiny model that learns it."""

from expunge.synth.benchmark import Benchmark, make
from expunge.synth.forms import Entry, Form

__all__ = ["Benchmark", "Entry", "Form", "make"]
