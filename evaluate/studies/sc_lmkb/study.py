"""The study of the paper SC-LMKB: its settings, its commands, its drawing."""

from sclmkb.common.options import preset_folder
from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.studies.base import StudyKind
from sclmkb.evaluate.studies.sc_lmkb.plan import make_study
from sclmkb.evaluate.studies.sc_lmkb.settings import PaperSettings


def _draw(settings: PaperSettings, study: Study) -> str:
    from sclmkb.evaluate.studies.sc_lmkb.output import write_output

    return write_output(settings, study)


STUDY = StudyKind(
    settings=PaperSettings,
    section="paper",
    folder=lambda preset: preset_folder(preset) / "paper",
    plan=lambda settings, where: make_study(settings, where.out, where.data),
    draw=_draw,
    ending="paper: figures in {out}/figures, all of it in {out}/report.html",
)
