"""The study of MTSC: its settings, its commands, its drawing."""

from sclmkb.common.options import preset_folder
from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.studies.base import StudyKind
from sclmkb.evaluate.studies.mtsc.plan import plan_mtsc
from sclmkb.evaluate.studies.mtsc.settings import MtscStudySettings


def _draw(settings: MtscStudySettings, study: Study) -> str:
    from sclmkb.evaluate.studies.mtsc.output import write_output

    return write_output(settings, study)


STUDY = StudyKind(
    settings=MtscStudySettings,
    section="mtsc-study",
    folder=preset_folder,
    preset="mtsc",
    plan=plan_mtsc,
    draw=_draw,
    ending="mtsc: figures in {out}/figures, all of it in {out}/report.html",
)
