"""Who says which words carry the unwanted information: rules, masked models, classifiers, chat models, people.

`annotate` runs any of them over records into an annotation file. An identifier is a frozen dataclass registered as
kind 'identifier'; `build` makes one from its spec, such as `phrases:file=secrets.txt`.
"""

from expunge.identifiers.annotate import Summary, annotate
from expunge.identifiers.finding import Estimate, Finding, Identifier, IdentifierError, fingerprint
from expunge.identifiers.specs import build

__all__ = ["Estimate", "Finding", "Identifier", "IdentifierError", "Summary", "annotate", "build", "fingerprint"]
