"""A small masked language model from scratch, for where no hub is reachable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from expunge.errors import DataError
from expunge.identifiers.neural.folder import save

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_BEGIN, _PAD, _END, _, _MASK = range(5)
Step = Callable[[int, float], None]
"""Called with (step, loss in nats) every `report_every` steps."""


@dataclass(frozen=True)
class Shape:
    """The size of the model and of its vocabulary. `length` is the longest text in tokens."""

    vocab_size: int = 8192
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    length: int = 256

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise DataError(
                f"a model of width {self.hidden_size} cannot have {self.num_attention_heads} attention heads. "
                "The width must be a multiple of their number."
            )


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Training ends after `steps`, or after `seconds` if given (then not reproducible).

    `rate` rises over the first tenth of the steps and falls to 0 in a line. `share` of the words of each text are
    hidden, whole, all of their pieces.
    """

    steps: int = 2000
    batch_size: int = 32
    rate: float = 1e-3
    share: float = 0.2
    weight_decay: float = 0.01
    seconds: float | None = None
    report_every: int = 50


def train_masked_lm(
    texts: Iterable[str],
    out: str | Path,
    *,
    shape: Shape | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    on_step: Step | None = None,
) -> Path:
    """The folder `out`, which now holds a RoBERTa and its byte-level BPE tokenizer, both fitted on the texts alone.

    An ordinary Hugging Face folder, with `training.json` beside the weights: sizes, steps, tokens read, losses. The
    same texts, settings and seed give the same bits on the same machine; no global random state is used.
    """
    shape, schedule, folder = shape or Shape(), schedule or Schedule(), Path(out).expanduser()
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise DataError("there are no texts to train a masked language model on.")
    tokenizer = fit_tokenizer(kept, shape)
    pieces = _pieces(tokenizer, kept, shape.length - 2)
    model = _fresh(shape, len(tokenizer), seed)
    _know_frequencies(model, pieces)
    _know_neighbours(model, pieces)
    history = _fit(model, pieces, _word_begins(tokenizer), schedule, seed, on_step)
    notes = {"shape": asdict(shape), "schedule": asdict(schedule), "seed": seed, "texts": len(kept),
             "tokens": sum(map(len, pieces)), "parameters": model.num_parameters(), **history}  # fmt: skip
    return save(folder, model, tokenizer, notes)


def fit_tokenizer(texts: Sequence[str], shape: Shape) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with RoBERTa's special tokens, fitted on the texts."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", _END), ("<s>", _BEGIN), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", model_max_length=shape.length,
    )  # fmt: skip


def _pieces(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int) -> list[NDArray[np.int32]]:
    """All texts as token ids, the long ones in pieces of `length`."""
    out = []
    for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]:
        row = np.asarray(ids, dtype=np.int32)
        out += [row[at : at + length] for at in range(0, len(row), length)]
    return [row for row in out if len(row) > 1]


def _word_begins(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.bool_]:
    """(V,) True for tokens with which a word may begin: after a space, a sign, a letter of three bytes (Chinese)."""
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    wide = {sign for sign, byte in _bytes().items() if byte >= 0xE0}
    plain = (name[0] in "ĠĊ" or name[0] in wide or not any(letter.isalnum() for letter in name) for name in names)
    return np.fromiter(plain, dtype=bool, count=len(names))


def _bytes() -> dict[str, int]:
    """The byte behind each sign of the byte-level alphabet: itself if it can be printed, else the next from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _fresh(shape: Shape, vocabulary: int, seed: int) -> RobertaForMaskedLM:
    config = RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=4 * shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        max_position_embeddings=shape.length + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=_BEGIN,
        pad_token_id=_PAD,
        eos_token_id=_END,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RobertaForMaskedLM(config)


def _know_frequencies(model: RobertaForMaskedLM, pieces: Sequence[NDArray[np.int32]]) -> None:
    """Sets the bias of the head to the log frequency of each token, which training would otherwise learn first."""
    bias = model.lm_head.bias
    counts = np.bincount(np.concatenate(list(pieces)), minlength=len(bias)) + 1.0
    with torch.no_grad():
        bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))


def _know_neighbours(model: RobertaForMaskedLM, pieces: Sequence[NDArray[np.int32]]) -> None:
    """Sets the embeddings, which are the head's too, to the main directions of which tokens stand near each other.

    A hidden token has nothing to go by but its neighbours, so that a fresh model stays at the loss of the frequencies
    until attention has found them; measured, for longer than a small budget lasts. From here the mean of the neighbours
    is a first guess. Positive pointwise mutual information within four tokens, by a truncated SVD; the scale is .1.
    """
    weight = model.get_input_embeddings().weight
    vocabulary, width = weight.shape
    near = _cooccurrences(pieces, vocabulary).tocoo()
    often = np.asarray(near.sum(1)).ravel()
    damped = often**0.75  # rare neighbours would have too much to say
    information = np.log(near.data * damped.sum() / (often[near.row] * damped[near.col]))
    positive = information > 0
    table = sparse.csr_matrix(
        (information[positive], (near.row[positive], near.col[positive])), shape=(vocabulary, vocabulary)
    )
    rank = min(width, vocabulary - 1, max(1, table.nnz - 1))
    if table.nnz < 2:
        return
    directions, strengths, _ = svds(table, k=rank, random_state=0)
    found = np.zeros((vocabulary, width))
    found[:, :rank] = directions * np.sqrt(strengths)
    found -= found.mean(0)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(0.1 * found / max(found.std(), 1e-12)))


def _cooccurrences(pieces: Sequence[NDArray[np.int32]], vocabulary: int) -> sparse.csr_matrix:
    """(V, V) how often two tokens stand within four places of each other, nearer ones counted more."""
    out = sparse.csr_matrix((vocabulary, vocabulary))
    for distance in range(1, 5):
        long = [piece for piece in pieces if len(piece) > distance]
        if not long:
            break
        first = np.concatenate([piece[:-distance] for piece in long])
        second = np.concatenate([piece[distance:] for piece in long])
        counts = sparse.coo_matrix(
            (np.full(len(first), 1 / distance), (first, second)), shape=(vocabulary, vocabulary)
        ).tocsr()
        out = out + counts + counts.T
    return out


def _fit(
    model: RobertaForMaskedLM,
    pieces: Sequence[NDArray[np.int32]],
    begins: NDArray[np.bool_],
    schedule: Schedule,
    seed: int,
    on_step: Step | None,
) -> dict[str, object]:
    """Trains the model in place; says how many steps and tokens it took, and the losses on the way."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay)
    started, losses, recent, read, step = time.monotonic(), [], [], 0, 0
    model.train()
    for step, batch in enumerate(_batches(pieces, schedule, seed), start=1):
        done = max(step / schedule.steps, _share_of_time(schedule, started))
        if done > 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * min(done / 0.1, (1 - done) / 0.9)
        loss = _loss(model, *_hidden(batch, begins, schedule.share, np.random.default_rng([seed, 1, step])))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        read += sum(map(len, batch))
        recent.append(float(loss.detach()))
        if step % schedule.report_every == 0:
            losses.append([step, round(float(np.mean(recent)), 4)])
            if on_step is not None:
                on_step(step, float(np.mean(recent)))
            recent = []
    model.eval()
    return {"steps": min(step, schedule.steps), "tokens_read": read, "losses": losses,
            "seconds": round(time.monotonic() - started, 1)}  # fmt: skip


def _share_of_time(schedule: Schedule, started: float) -> float:
    return (time.monotonic() - started) / schedule.seconds if schedule.seconds else 0.0


def _batches(pieces: Sequence[NDArray[np.int32]], schedule: Schedule, seed: int) -> Iterator[list[NDArray[np.int32]]]:
    """`steps` batches of pieces of about one length, epoch after epoch in another order."""
    made = epoch = 0
    while made < schedule.steps:
        rng = np.random.default_rng([seed, 0, epoch])
        order = rng.permutation(len(pieces))
        pool = 50 * schedule.batch_size
        groups: list[NDArray[np.int64]] = []
        for at in range(0, len(order), pool):
            part = order[at : at + pool]
            part = part[np.argsort([len(pieces[i]) for i in part], kind="stable")]
            groups += [part[i : i + schedule.batch_size] for i in range(0, len(part), schedule.batch_size)]
        for index in rng.permutation(len(groups)):
            if made == schedule.steps:
                return
            made += 1
            yield [pieces[i] for i in groups[index]]
        epoch += 1


def _hidden(
    batch: Sequence[NDArray[np.int32]], begins: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, T) ids with masks, attention mask, (B, T) bool where hidden, (N,) hidden tokens. At least one a text."""
    longest = max(map(len, batch)) + 2
    ids = np.full((len(batch), longest), _PAD, dtype=np.int64)
    hide = np.zeros(ids.shape, dtype=bool)
    for row, piece in enumerate(batch):
        ids[row, : len(piece) + 2] = [_BEGIN, *piece, _END]
        word = np.cumsum(begins[piece].astype(np.int64)) - int(begins[piece[0]])
        chosen = rng.random(word[-1] + 1) < share
        chosen[rng.integers(len(chosen))] = True
        hide[row, 1 : len(piece) + 1] = chosen[word]
    shown = np.where(hide, _MASK, ids)
    return (torch.from_numpy(shown), torch.from_numpy((ids != _PAD).astype(np.int64)), torch.from_numpy(hide),
            torch.from_numpy(ids[hide]))  # fmt: skip


def _loss(model: RobertaForMaskedLM, ids: Tensor, attention: Tensor, hide: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (nats) at the hidden positions; the head runs on those alone."""
    states = model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
    return torch.nn.functional.cross_entropy(model.get_submodule("lm_head")(states[hide]), targets)
