"""``sclmkb-eval``: measures trained systems and draws the results."""

import typer

from sclmkb.common.console import LogFormat, run_app
from sclmkb.common.options import LogFormatOption
from sclmkb.evaluate.commands import measure, report, search, study

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(log_format: LogFormatOption = LogFormat.TEXT) -> None:
    """Measure trained systems over SNR (run), predictors of CSI (csi), and write one HTML page of it all (report).

    The classical baseline, separate source and channel coding, is measured in the same way (sscc). Two measurements can
    be put side by side (compare).

    Send one sentence over the simulated link and see what it finds (search), or do so on a local page (serve).
    """


_MEASURING = (measure.run, measure.sscc, measure.compare, measure.csi)
for command in (*_MEASURING, study.study, study.paper, report.report, search.search, search.serve):
    app.command()(command)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
