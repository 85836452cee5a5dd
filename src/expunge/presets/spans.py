"""Methods that read annotated spans of the forget answers."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.presets.preset import Preset, Published, Term, forget, retain


def _targeted(preserve: float, *others: Term, score: str = "given", lpl: str = "lpl:beta=0.25") -> tuple[Term, ...]:
    """Unwanted words pushed down, the rest of the same answers held, and other terms."""
    unwanted = forget(lpl, score=score, select="threshold:value=0")
    return (unwanted, {**unwanted, "objective": "preserve", "tokens": "unselected", "coef": preserve}, *others)


_TIF = "Zhou et al., AAAI 2026, arXiv 2506.03142"
_TUNED = "beta was tuned by model and split, 0.25 is that of the paper's sweep of the preservation weight"
_SETTINGS = {"beta": "0.objective.beta", "preserve": "1.coef"}
_CODE = "values and gradients of the released code"


def _tuned(benchmark: str, model: str, beta: float) -> Published:
    return Published(benchmark, {"beta": beta}, model, source="the authors' repository")


_TUNED_BETAS = (
    _tuned("tofu-forget01", "llama-2-7b", 0.32),
    _tuned("tofu-forget05", "llama-2-7b", 0.32),
    _tuned("tofu-forget10", "llama-2-7b", 0.23),
    _tuned("tofu-forget01", "llama-3.2-3b", 0.3),
    _tuned("tofu-forget05", "llama-3.2-3b", 0.27),
    _tuned("tofu-forget10", "llama-3.2-3b", 0.19),
    Published(
        "muse",
        {"beta": 0.2},
        also={
            "train.per_device_train_batch_size": 2,
            "train.gradient_accumulation_steps": 1,
            "train.lr_scheduler_type": "linear",
            "data.max_length": 2048,
        },
        source="the authors' repository",
    ),
)
"""The best values that the authors publish."""


PRESETS: Mapping[str, Preset] = {
    "tif": Preset(
        "the logits of annotated words pushed below the reference's, the rest of the same answers held",
        f"TIF, {_TIF}",
        _targeted(0.01),
        differs=f"{_TUNED}; nothing holds the retain set",
        settings=_SETTINGS,
        parity=_CODE,
        published=_TUNED_BETAS,
    ),
    "tif-retain": Preset(
        "TIF, with likelihood on the retain set",
        f"TIF, {_TIF}",
        _targeted(0.01, retain()),
        differs=_TUNED,
        settings=_SETTINGS,
        parity=_CODE,
        published=_TUNED_BETAS,
    ),
    "tif-mlm": Preset(
        "TIF, where unwanted is what an annotation does not call general: the masked-LM identifier's way",
        f"TIF, {_TIF}",
        _targeted(0.01, score="given:label=not-general"),
        differs=f"{_TUNED}; nothing holds the retain set",
        settings=_SETTINGS,
        parity=_CODE,
        published=_TUNED_BETAS,
    ),
    "tif-code": Preset(
        "TIF as its released code computes it on TOFU: batch mean inside the sigmoid, general words at full weight",
        f"TIF, {_TIF}: tpo_grad_diff",
        _targeted(1.0, retain(), lpl="lpl:beta=0.25,sigmoid=batch"),
        differs="sequences without unwanted words are defined, not NaN; needs one micro-batch an update",
        settings=_SETTINGS,
        parity=_CODE,
        published=_TUNED_BETAS,
    ),
    "palu": Preset(
        "the first tokens of annotated spans flattened, the rest of the answer held at the reference's prediction",
        "PALU, Zhai et al., ACL 2026, arXiv 2601.03190",
        (
            forget(
                "flatten:top_k=50,of=reference,denominator=selected",
                score="given",
                select="threshold:value=0 > onset:n=3",
            ),
            {
                **forget("kl:direction=reverse,denominator=selected", score="given", select="threshold:value=0"),
                "tokens": "unselected",
            },
            retain(),
        ),
        differs="K 50 and the first 3 tokens as in its best results; its configuration ships K 1 and whole spans; its "
        "grid has leash and retain .2 .5 1 2 5, learning_rate 1e-5 to 5e-5",
        settings={"flatten": "0.coef", "leash": "1.coef", "retain": "2.coef"},
    ),
}
