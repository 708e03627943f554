"""What is painted for a case and what the witnesses say of it; pictures of the intact model are painted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gazetteer.attribution.evaluation.distances import Features
from gazetteer.attribution.evaluation.outcomes import Case, Classifier, Judge, Look, Paint


@dataclass
class Witnesses:
    """Those who look at pictures.

    Attributes:
        paint: draws with the model as it stands.
        judge: finds concepts and how much of the picture they cover.
        classifier: a second witness beside the judge; None: there is none.
        features: what perceptual distances, FID and KID are measured in; None leaves them out.
    """

    paint: Paint
    judge: Judge
    classifier: Classifier | None = None
    features: Features | None = None
    _intact: dict[Case, Look] = field(default_factory=dict, repr=False)

    def look(self, cases: Sequence[Case]) -> list[Look]:
        """Pictures of the model as it stands, and what is found in them."""
        if not cases:
            return []
        images = self.paint([case.prompt for case in cases], [case.seed for case in cases])
        found = self.judge(images)
        maps = self.features(images) if self.features else [None] * len(images)
        read = self.classifier(images) if self.classifier else [None] * len(images)
        return [Look(*one) for one in zip(images, found, maps, read, strict=True)]

    def intact(self, cases: Sequence[Case]) -> list[Look]:
        """The same of the intact model, which has to be in place when a case is asked for the first time."""
        new = [case for case in dict.fromkeys(cases) if case not in self._intact]
        self._intact.update(zip(new, self.look(new), strict=True))
        return [self._intact[case] for case in cases]
