"""What happened to the songs of a batch: collected while it runs, and written as a page at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..engine.detect.analysis import Finding
from ..engine.errors import OptionError, OutputError, StemProverError
from ..engine.preset import Preset
from ..offline.address import Address
from ..offline.audiofile import clock, probe, read_part
from ..offline.batch import BatchListener
from ..offline.outfile import atomic_output, check_output
from ..offline.plan import BatchJob, BatchPlan, JobDefaults
from ..offline.render import RenderReport
from .page import heading, link, make_page, paragraph, player_section, table

WORST = 10  # stems that come first, with a page to listen to
LISTEN_S = 20.0


@dataclass
class _Stem:
    """What is known of one stem."""

    job: BatchJob
    preset: Preset | None = None
    report: RenderReport | None = None
    before: tuple[Finding, ...] = ()
    after: tuple[Finding, ...] = ()
    error: str = ""
    is_done: bool = False

    @property
    def badness(self) -> tuple[float, float]:
        """By which the worst comes first: how much the detectors still find, and how much they did."""
        return _strength(self.after), _strength(self.before)

    @property
    def was_done(self) -> str:
        if self.error:
            return self.error
        if self.report is None:
            return "done by an earlier run"
        note = "" if self.preset is None else self.preset.note or self.preset.name
        return ", ".join([part for part in (note, *self.report.notes) if part]) or "repaired"

    @property
    def change(self) -> str:
        if self.report is None:
            return ""
        return "unchanged" if self.report.correction_db is None else f"{self.report.correction_db:+.1f} dB"


class BatchReport(BatchListener):
    """Collects the events of a batch. target: the page; its listening pages get a folder beside it. Raises OptionError
    and OutputExistsError, before anything is done."""

    def __init__(self, target: Path, plan: BatchPlan, defaults: JobDefaults, *, overwrite: bool) -> None:
        if target.suffix.lower() not in (".html", ".htm"):
            raise OptionError(f"--report {target}: use a name that ends with .html")
        check_output(target, plan.inputs, overwrite=overwrite)
        self.target, self._plan, self._overwrite = target, plan, overwrite
        self._stems = {job: _Stem(job, defaults.preset_of(job)) for job in plan.jobs}
        self._by_source = {job.source: stem for job, stem in self._stems.items()}
        self._errors: list[tuple[str, str]] = []

    def chose(self, job: BatchJob, preset: Preset) -> None:
        self._stems[job].preset = preset

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        self._stems[job].report, self._stems[job].is_done = report, True

    def already_done(self, job: BatchJob) -> None:
        self._stems[job].is_done = True

    def heard(self, job: BatchJob, before: Sequence[Finding], after: Sequence[Finding]) -> None:
        self._stems[job].before, self._stems[job].after = tuple(before), tuple(after)

    def failed(self, path: Path, error: StemProverError) -> None:
        self._errors.append((str(path), str(error).removeprefix(f"{path} ")))
        if path in self._by_source:
            self._by_source[path].error = str(error)

    def write(self) -> None:
        """Write the page, and those to listen to the worst stems. Raises OutputError, OutputExistsError."""
        done = [stem for stem in self._stems.values() if stem.is_done and not stem.error]
        worst = sorted((stem for stem in done if max(stem.badness) > 0), key=lambda stem: stem.badness, reverse=True)
        pages = {
            stem.job: self._listening_page(number, stem)
            for number, stem in enumerate(worst[:WORST], start=1)
            if not {type(stem.job.source), type(stem.job.target)} & {Address}  # those are not on this machine
        }
        body = [paragraph(self._summary(done))]
        if self._errors:
            body += [heading("Failed"), table(("File", "Reason"), self._errors, of_words=True)]
        if pages:
            body += [heading("The worst"), paragraph("Those in which the detectors find most after the repair.")]
            body += [_table(worst[:WORST], pages, with_song=True)]
        body.append(heading("All songs"))
        for song in self._plan.songs:
            body += [heading(_song(song[0]), 3), _table([self._stems[job] for job in song], pages)]
        body.append(
            paragraph(
                "Found: what the detectors find in the stem and in its repaired file, from 0 to 1. "
                "Change: the energy of what was changed, relative to the stem."
            )
        )
        with atomic_output(self.target, self._plan.inputs, overwrite=self._overwrite) as part:
            part.write_text(make_page("Repaired songs", body), encoding="utf-8")

    def _summary(self, done: Sequence[_Stem]) -> str:
        reports = [stem.report for stem in done if stem.report is not None]
        changed = [report for report in reports if report.correction_db is not None]
        sound_s = sum(report.duration_s for report in reports)
        parts = [f"{len(changed)} were repaired", f"{len(reports) - len(changed)} left unchanged"]
        if earlier := len(done) - len(reports):
            parts.append(f"{earlier} done by an earlier run")
        if self._errors:
            parts.append(f"{len(self._errors)} failed")
        return f"Of {len(self._stems)} stems, {', '.join(parts)}. Repaired in this run: {clock(sound_s)} of sound."

    def _listening_page(self, number: int, stem: _Stem) -> str:
        """Write a page with the place where the detectors found most; returns its address relative to the report."""
        folder = self.target.with_name(f"{self.target.stem}-listen")
        job = stem.job
        rate = probe(job.source).sample_rate
        strongest = max(stem.before, key=lambda finding: finding.strength)
        start, count = round(strongest.from_s * rate), round(LISTEN_S * rate)
        signals = {"Before": read_part(job.source, start, count), "After": read_part(job.target, start, count)}
        page = folder / f"{number:02d}-{job.source.stem}.html"
        body = [
            paragraph(f"{job.source}, from {clock(strongest.from_s)[:-4]} on. {stem.was_done}."),
            player_section(signals, rate),
        ]
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be created: {error.strerror}") from error
        with atomic_output(page, self._plan.inputs, overwrite=True) as part:
            part.write_text(make_page(job.source.name, body), encoding="utf-8")
        return quote(f"{folder.name}/{page.name}")


def _strength(findings: Sequence[Finding]) -> float:
    return sum(finding.strength for finding in findings)


def _found(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{finding.kind} {finding.score:.2f}" for finding in findings if finding.found) or "nothing"


def _song(job: BatchJob) -> str:
    return "Without a mix" if job.beside is None else job.beside.stem


def _table(stems: Sequence[_Stem], pages: Mapping[BatchJob, str], *, with_song: bool = False) -> str:
    rows = []
    for stem in stems:
        job, name = stem.job, stem.job.source.name
        if job.beside is None or with_song:
            name = f"{job.source.parent.name}/{name}"
        found = ("", "") if stem.error else (_found(stem.before), _found(stem.after))
        rows.append((link(name, pages[job]) if job in pages else name, *found, stem.was_done, stem.change))
    return table(("Stem", "Found before", "Found after", "What was done", "Change"), rows, of_words=True)
