"""The built-in benchmark: fictitious people, and libraries of code, as text whose fact spans are known."""

from expunge.synth.benchmark import TAUGHT, Benchmark, make
from expunge.synth.demo import DEMO, Demo
from expunge.synth.files import write
from expunge.synth.forms import Entry, Form

__all__ = ["DEMO", "TAUGHT", "Benchmark", "Demo", "Entry", "Form", "make", "write"]
