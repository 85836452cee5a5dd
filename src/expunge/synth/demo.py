"""The demo's size: small enough for two cores and a few minutes, large enough to tell methods apart."""

from __future__ import annotations

from dataclasses import dataclass, field

from expunge.recipe import Train
from expunge.sections import FreshModel
from expunge.synth.benchmark import Benchmark, make


@dataclass(frozen=True)
class Demo:
    """A benchmark, a model that can learn it by heart, and how both are trained.

    40 people: 8 to forget (the fewest for a bootstrap over people), 8 never taught, 24 to keep. Twelve kinds of fact
    make 96 forgotten records. The model has half a million parameters and learns 504 texts in 14 epochs.
    """

    people: int = 40
    seed: int = 0
    facts: int = 12
    forget_share: float = 0.2
    holdout_share: float = 0.2
    general: int = 40
    max_length: int = 128
    judged: int = 96
    max_new_tokens: int = 48
    model: FreshModel = field(
        default_factory=lambda: FreshModel(
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=1024,
            max_position_embeddings=256,
        )
    )
    finetune: Train = field(
        default_factory=lambda: Train(
            num_train_epochs=14,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=1,
            learning_rate=2.5e-3,
            warmup_epochs=1,
            adam_beta2=0.98,
        )
    )
    unlearn: Train = field(
        default_factory=lambda: Train(
            num_train_epochs=5,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=1,
            learning_rate=3e-4,
            lr_scheduler_type="constant",
        )
    )

    def make(self) -> Benchmark:
        """The benchmark of the demo."""
        return make(
            people=self.people,
            seed=self.seed,
            facts=self.facts,
            forget_share=self.forget_share,
            holdout_share=self.holdout_share,
            general=self.general,
        )


DEMO = Demo()
