"""Generation tables by vLLM, in this process: the same prompts, stops and limits as `generation`, a faster writer.

Not run on a GPU by us yet: the interface is tested against a stand-in, and a test marked `gpu` compares the texts with
our own where there is one.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from expunge import adapters
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.decode import Progress, stop_ids
from expunge.errors import ModelError
from expunge.evals.generation import table_of
from expunge.lm import LM


def generate(
    lm: LM, encoder: Encoder, records: Sequence[Record], *, max_new_tokens: int = 200, progress: Progress | None = None
) -> pa.Table:
    """The generation table as `generation.generate` makes it, written by vLLM from the model's folder or hub name.

    ModelError without vLLM, or for a model that is not on disk as it is in memory (an adapter beside its base, weights
    that were quantised while loading).
    """
    try:
        import vllm
    except ImportError:
        raise ModelError(
            "evaluation.generator=vllm needs vLLM and a GPU: pip install 'expunge[vllm]', or set it to own"
        ) from None
    if adapters.attached(lm.model) or adapters.quantised(lm.model) or not _loadable(lm.name):
        raise ModelError(
            f"evaluation.generator=vllm reads a whole model from disk, and '{lm.name}' is none. Set it to own"
        )
    prompts = [encoder.prompt_ids(record) for record in records]
    stops = stop_ids(lm, encoder, records)
    asked = vllm.SamplingParams(temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=sorted(stops))
    with _aside(lm):
        engine = vllm.LLM(model=lm.name, dtype=str(lm.model.dtype).removeprefix("torch."), trust_remote_code=False)
        replies = engine.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], asked, use_tqdm=False)
        written = [_text(lm, reply.outputs[0], stops) for reply in replies]
        del engine
        gc.collect()
    if progress is not None:
        progress(len(written), len(records))
    return table_of(records, written)


def _text(lm: LM, reply: Any, stops: frozenset[int]) -> tuple[str, int, bool]:
    """(text, how many tokens, whether it stopped by itself); the token that stopped it counts for neither."""
    ids = list(reply.token_ids)
    stopped = bool(ids) and ids[-1] in stops
    kept = ids[:-1] if stopped else ids
    return str(lm.tokenizer.decode(kept, skip_special_tokens=True)).strip(), len(kept), stopped


def _loadable(name: str) -> bool:
    """True for a folder with a model, and for what can only be a hub name."""
    folder = Path(name)
    return (folder / "config.json").is_file() if folder.exists() else name.count("/") == 1


@contextmanager
def _aside(lm: LM) -> Iterator[None]:
    """The model's weights off the GPU inside, which vLLM wants for itself."""
    device = lm.device
    if device.type == "cuda":
        lm.model.to("cpu")
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        lm.model.to(device)
