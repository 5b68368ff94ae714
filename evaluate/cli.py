"""``sclmkb-eval``: measures trained systems and draws the results."""

import typer

from sclmkb.common.console import LogFormat, run_app
from sclmkb.common.options import LogFormatOption
from sclmkb.evaluate.commands import measure, multitask, report, search, study

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(log_format: LogFormatOption = LogFormat.TEXT) -> None:
    """Measure trained systems over SNR (run, mtsc) and predictors of CSI (csi); report writes one HTML page of all.

    sscc measures the classical baseline, separate source and channel coding. compare puts two measurements side by
    side. search sends one sentence over the simulated link and shows what it finds; serve does so
    on a local page, and sends pictures, sounds and animations on another one.
    """


_MEASURING = (measure.run, measure.sscc, measure.compare, measure.csi, multitask.mtsc)
for command in (*_MEASURING, study.study, study.paper, report.report, search.search, search.serve):
    app.command()(command)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
