"""spaCy's pipelines: the one place where one is opened, and what its tags say about words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from expunge.errors import DataError, MissingExtraError

CONTENT = frozenset({"NOUN", "PROPN", "NUM", "VERB", "ADJ"})
"""Universal parts of speech of words that carry content; the others hold sentences together."""


def pipeline(model: str, language: str = "en") -> Any:
    """The spaCy pipeline of a name or path, or the language's blank one (which splits words only) without a name.

    MissingExtraError without spaCy; OSError if it cannot be opened.
    """
    try:
        import spacy
    except ImportError:
        raise MissingExtraError("a spaCy pipeline", "spacy") from None
    return spacy.load(model) if model else spacy.blank(language)


def content_share(texts: Iterable[str], model: str, bare: Callable[[str], str]) -> dict[str, float]:
    """For each word how often the pipeline's tagger takes it for one with content, from 0 to 1; `bare` names words.

    DataError if the pipeline cannot be opened, or tags nothing.
    """
    try:
        tagger = pipeline(model)
    except OSError as error:
        raise DataError(f"spaCy cannot open '{model}': {str(error).splitlines()[0]} Install that pipeline.") from None
    seen: Counter[str] = Counter()
    content: Counter[str] = Counter()
    tagged = False
    for document in tagger.pipe(texts):
        for token in document:
            word = bare(token.text)
            tagged |= bool(token.pos_)
            if word:
                seen[word] += 1
                content[word] += token.pos_ in CONTENT
    if seen and not tagged:
        raise DataError(f"the spaCy pipeline '{model}' tags no parts of speech. Name one with a tagger.")
    return {word: content[word] / count for word, count in seen.items()}
