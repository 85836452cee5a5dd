"""Rewording: the question in forms that nothing was unlearned in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from expunge.attacks import asking
from expunge.attacks.rewordings import KINDS, PARTS, TEMPLATES, Maker, Part, trained_on
from expunge.attacks.scene import Budget, Scene, Tell, Writer, row
from expunge.attacks.writer import EACH, of_part
from expunge.data.records import Record
from expunge.errors import DataError, MethodError, unknown
from expunge.evals.reductions import PLAIN, Row
from expunge.registry import method

WRITTEN = "written"


@method("attack", "rewording")
@dataclass(frozen=True)
class Rewording:
    """The share of the key words that any reworded question brings out, in greedy answers.

    `kinds` (all but the last): the data's paraphrase, frames, jailbreaks, cloze, reverse questions, multiple choice,
    formats, retain examples in front, a retain question beside it, a neighbour's question with the same answer, and
    `written`: by the model that `writer` names, at the address that was given. All else is by deterministic templates.
    Probes are in three parts; one that is nearly a prompt of the forget or retain set, or of another part, is left out,
    and counted.

    Source: any variant counts, as in the code of JensUn and ATWU; formats: arXiv 2411.15477. Differs: the judge counts
    key words, it is no language model.
    """

    kinds: str = " ".join(KINDS)
    part: Part = "test"
    writer: str = ""

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "share of the key words in the answer to any rewording"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "any"

    def __post_init__(self) -> None:
        for kind in self.parts:
            if kind not in (*KINDS, WRITTEN):
                raise MethodError(unknown("kind of rewording", kind, (*KINDS, WRITTEN)))
        if (WRITTEN in self.parts) != bool(self.writer):
            raise MethodError("attack 'rewording': kinds=written and writer=NAME, the model that writes, go together")

    @property
    def parts(self) -> tuple[str, ...]:
        """The kinds."""
        return tuple(self.kinds.split())

    def budget(self, scene: Scene, part: str) -> Budget:
        """Reading each probe, twice as long as its question, and writing its answer; as if all could be made."""
        forms = len(TEMPLATES[part][self.part]) if part in TEMPLATES else EACH if part == WRITTEN else 1
        if part == WRITTEN:
            self._writer(scene)
        count = len(scene.examined(asked=True)) * (forms + (part == self.parts[0]))
        return Budget(read=2 * count * scene.size, written=count * scene.max_new_tokens)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and probe."""
        lm, (probes, dropped) = scene.load(label), self.probes(scene, part)
        if part == self.parts[0]:
            probes = {PLAIN: scene.examined(asked=True), **probes}
        for done, (condition, asked) in enumerate(probes.items()):
            texts = asking.written(lm, scene.encoder(lm), asked, max_new_tokens=scene.max_new_tokens)
            yield from (row(r, condition, asking.told(r, text)) for r, text in zip(asked, texts, strict=True))
            tell(done + 1, len(probes))
        yield Row("probes", part, "", "left out as trained on", 0.0, float(dropped))

    def probes(self, scene: Scene, kind: str) -> tuple[dict[str, list[Record]], int]:
        """The probes of a kind by condition, and how many were left out because they are nearly training prompts."""
        retained = scene.sets.get("retain", ())
        records = scene.examined(asked=True)
        elsewhere: list[Record] = []
        if kind == WRITTEN:
            made, elsewhere = self._written(scene, records)
        else:
            maker = Maker(retained, records, scene.seed, self.part)
            made = [(c, probe) for one in records for c, probe in maker.probes(one) if c.partition(" ")[0] == kind]
        known = [record for name in ("forget", "retain") for record in scene.sets.get(name, ()) if record.prompt]
        left_out = trained_on([probe for _, probe in made], [*known, *elsewhere])
        kept: dict[str, list[Record]] = defaultdict(list)
        for condition, probe in made:
            if probe.prompt not in left_out:
                kept[condition].append(probe)
        return dict(kept), sum(probe.prompt in left_out for _, probe in made)

    def _written(self, scene: Scene, records: Sequence[Record]) -> tuple[list[tuple[str, Record]], list[Record]]:
        """The probes that a model wrote for this part, and those of the other parts."""
        found = self._writer(scene)([record.prompt for record in records])

        def probes(part: Part) -> list[tuple[str, Record]]:
            return [
                (f"{WRITTEN} {number}", replace(record, prompt=text, history=()))
                for record in records
                for number, text in enumerate(of_part(found[record.prompt], part), 1)
            ]

        return probes(self.part), [probe for part in PARTS if part != self.part for _, probe in probes(part)]

    def _writer(self, scene: Scene) -> Writer:
        if scene.writer is None or scene.writer.name != self.writer:
            raise DataError(
                f"attack 'rewording' with writer={self.writer} needs the address where it is served. Give --address URL"
            )
        return scene.writer
