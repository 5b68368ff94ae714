"""The study of the paper SC-LMKB: its settings, its commands, its drawing."""

from sclmkb.common.options import preset_folder
from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.studies.base import StudyKind, Where
from sclmkb.evaluate.studies.sc_lmkb.plan import make_study
from sclmkb.evaluate.studies.sc_lmkb.settings import PaperSettings


def _plan(settings: PaperSettings, where: Where) -> Study:
    return make_study(settings, where.out, where.data)


def _draw(settings: PaperSettings, study: Study) -> str:
    from sclmkb.evaluate.studies.sc_lmkb.output import write_output

    return write_output(settings, study)


STUDY = StudyKind(
    settings=PaperSettings,
    section="paper",
    folder=lambda preset: preset_folder(preset) / "paper",
    plan=_plan,
    draw=_draw,
    ending="paper: figures in {out}/figures, all of it in {out}/report.html",
)
