"""Predictions or hidden states brought to a target: a teacher, a direction, the mean of the logits."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.presets.preset import EQUAL, TOFU, Preset, Published, forget, retain

PRESETS: Mapping[str, Preset] = {
    "undial": Preset(
        "self-distillation: the reference's own prediction with the answer's logit lowered",
        "UNDIAL, arXiv 2402.10052; OpenUnlearning (learning_rate 1e-4, no retain term)",
        (forget("undial:beta=10"),),
        differs="averaged over the answer; OpenUnlearning's mean over prompt and padding is undial-ou",
        settings={"beta": "0.objective.beta"},
        parity=f"{EQUAL} (undial-ou)",
        published=(Published("tofu", also={"train.learning_rate": 1e-4}, source="OpenUnlearning"),),
    ),
    "undial-ou": Preset(
        "UNDIAL as OpenUnlearning computes it: over prompt and padding too, where it lowers an entry at random",
        "arXiv 2402.10052; OpenUnlearning",
        (forget("undial:beta=10,positions=predicting"),),
        settings={"beta": "0.objective.beta"},
        parity=EQUAL,
        published=(Published("tofu", also={"train.learning_rate": 1e-4}, source="OpenUnlearning"),),
    ),
    "ceu": Preset(
        "cross-entropy to the model's own prediction without the answer's token; the first answer token is left out",
        "CE-U, arXiv 2503.01224; OpenUnlearning (no retain term)",
        (forget("ceu:denominator=selected", select="skip:n=1"),),
        parity=EQUAL,
        published=(TOFU,),
    ),
    "asu": Preset(
        "forget answers taught by the reference with its attention smoothed",
        "ASU, ICLR 2026, arXiv 2603.01285",
        (forget("kl:attention=2.4"), retain()),
        differs="temperatures from 2.0 to 2.8 were used, 2.4 is our default; 6 to 8 shallow layers may do",
        settings={"attention": "0.objective.attention", "layers": "0.objective.layers", "retain": "1.coef"},
    ),
    "rmu": Preset(
        "hidden states of forget tokens steered to a random direction, those of retain tokens held at the reference's",
        "WMDP, arXiv 2403.03218; OpenUnlearning's RMU with retain_loss_type EMBED_DIFF",
        (forget("rmu:steering_coeff=2"), retain("activation")),
        differs="the peer's layer is 7 of any model; ours is a depth. WMDP trains three layers: see train.trainable",
        parity=f"{EQUAL} (mean=broadcast), and its direction",
        settings={
            "layer": "0.objective.layer 1.objective.layer",
            "steering_coeff": "0.objective.steering_coeff",
            "retain": "1.coef",
        },
        published=(
            TOFU,
            Published(
                "wmdp",
                {"layer": 8, "steering_coeff": 6.5, "retain": 1200},
                "zephyr-7b",
                {"train.trainable": r"layers\.[567]\.mlp\.down_proj"},
                source="the authors' repository for this model, steps and batch from OpenUnlearning",
            ),
        ),
    ),
    "pdu": Preset(
        "the highest logit of forget tokens brought to the mean, under a bound on the retain loss (primal-dual)",
        "PDU, arXiv 2506.05314; OpenUnlearning, TOFU: learning_rate 1e-5",
        (
            forget("flatten:top_k=1"),
            {**retain(), "constraint": {"at_most": 0.3, "start": 100.0, "rate": 5.0, "warmup_epochs": 5.0}},
        ),
        differs="one move of the dual variable an update; OpenUnlearning moves it in each micro-batch, and reads "
        "logits one place on (flatten:positions=own)",
        parity=f"{EQUAL} (positions=own), and its dual variable",
        published=(TOFU,),
    ),
}
