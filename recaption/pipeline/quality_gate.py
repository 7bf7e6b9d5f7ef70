"""Judges answers: which prompts are asked again, which answers are kept, which samples filtered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from recaption.engine.base import Caption, Spec
from recaption.model.quality import Checks
from recaption.pipeline.work import Work

HOTTEST = 2.0


class QualityGate:
    """Applies a run's quality rules to works."""

    def __init__(self, spec: Spec) -> None:
        self.settings = spec.config.quality
        self.coldest = spec.config.sampling.temperature
        self.checks = Checks(self.settings, spec.prompts)

    def asks_again(self, work: Work, names: Sequence[str], captions: Sequence[Caption]) -> bool:
        """Take the answers to some prompts; True if the work should be prepared once more.

        Of several answers to a prompt the one with the fewest bad flags is kept, the earliest of
        these; the others are kept as the work's `attempts`.
        """
        for name, caption in zip(names, captions, strict=True):
            self._take(work, name, caption)
        bad = tuple(n for n in names if self.checks.bad(work.flags[n]))
        if bad and work.retries < self.settings.retries:
            work.retries += 1
            rise = work.retries * self.settings.temperature_step
            work.temperature = min(HOTTEST, self.coldest + rise)
            work.asking = bad
            return True
        work.asking, work.retries, work.temperature = (), 0, None
        return False

    def refused(self, work: Work) -> str:
        """Why a sample that has all its answers is filtered; '' if it is published."""
        if self.settings.action != "filter":
            return ""
        found = {name: self.checks.bad(flags) for name, flags in work.flags.items()}
        reasons = [
            f"caption{f' {name}' if len(found) > 1 else ''} is flagged {', '.join(flags)}"
            for name, flags in found.items()
            if flags
        ]
        return "; ".join(reasons)

    def _take(self, work: Work, name: str, caption: Caption) -> None:
        flags = self.checks.flags(caption, name, cut=name in work.cut)
        place: dict[str, Any] = {"attempt": work.retries, "temperature": work.temperature}
        if work.temperature is None:
            place["temperature"] = self.coldest
        answer = {"prompt": name, **place, "flags": ",".join(flags)}
        before = work.answers.get(name)
        if before is None or len(self.checks.bad(flags)) < len(self.checks.bad(work.flags[name])):
            if before is not None:
                work.attempts.append({**before, **_said(work.captions[name])})
            work.answers[name], work.flags[name] = answer, flags
            work.captions[name] = caption
        else:
            work.attempts.append({**answer, **_said(caption)})


def _said(caption: Caption) -> dict[str, Any]:
    said = asdict(caption)
    return {"caption": said.pop("text"), **said}
