"""The dataset card of generated captions."""

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import SavedPlan
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.generate.captions.summary import BINS, Statistics, collect, percent

TITLE = "Generated captions"
DESCRIPTION = (
    "Captions that a language model wrote for the captions of a corpus, and what the hallucination filter said of them."
    " One row of `rows` is a source caption with its state (`ok`, `rejected` or `error`) and its kept captions, best"
    " first; one row of `attempts` is a sample, kept or not, with its similarity to the source and the reason why it"
    " was rejected."
)
BAR_WIDTH = 40


def finish_run(run: Run) -> Artifact:
    """Write the dataset card of a run whose shards are all committed, and return its artifact.

    Raises:
        UserError: if shards are still pending, or another process has just opened one again.
    """
    artifact = Artifact.open(run.root, run.plan.kind, verify=False)
    return run.finish(TITLE, DESCRIPTION, card_details(artifact))


def card_details(artifact: Artifact) -> str:
    """Return the body of the card, in Markdown: origin, acceptance, similarities, limits."""
    found = collect(artifact)
    return "\n".join([*_origin(artifact.plan), *_acceptance(found), *_histogram(found), *_limits(artifact.plan)])


def _origin(plan: SavedPlan) -> list[str]:
    settings, inputs, source = plan.settings, plan.inputs, plan.notes.get("source", {})
    sampling = settings.get("sampling", {})
    model = (
        f"`{settings.get('model')}` (fingerprint `{inputs.get('model')}`), engine `{settings.get('engine')}`,"
        f" {', '.join(f'{key} {value}' for key, value in sampling.items() if key != 'stop')}"
    )
    lines = [
        "## Origin",
        "",
        "- language model: " + (model if settings.get("engine") != "template" else "none, captions in fixed phrases"),
        f"- prompt: `{settings.get('prompt')}` (fingerprint `{inputs.get('prompt', 'none')}`)",
        f"- source captions: corpus `{source.get('settings', {}).get('dataset', 'unnamed')}` (fingerprint"
        f" `{inputs.get('corpus')}`)",
    ]
    lines += [f"- of the source: {key}: {value}" for key, value in source.get("notes", {}).items()]
    return [
        *lines,
        "",
        "Generated captions are made from the source captions: whoever passes them on keeps to the licence of the"
        " source and to that of the language model.",
    ]


def _acceptance(found: Statistics) -> list[str]:
    num_rows, kept = sum(found.rows.values()), found.kept.total()
    lines = [
        "",
        "## Acceptance",
        "",
        f"{percent(kept, found.samples)} of {found.samples} samples were kept;"
        f" {percent(found.rows.get('ok', 0), num_rows)} of {num_rows} source captions have a kept one.",
        "",
        "| verdict | samples |",
        "|---|---|",
    ]
    lines += [f"| kept in round {number + 1} | {found.kept[number]} |" for number in sorted(found.kept)]
    return lines + [f"| rejected: {reason} | {count} |" for reason, count in found.reasons.most_common()]


def _histogram(found: Statistics) -> list[str]:
    both = found.kept_histogram + found.rejected_histogram
    used = both.nonzero()[0]
    lines = ["", "Cosine similarity to the source caption, equation (24); `#` kept, `.` rejected:", "", "```"]
    scale = BAR_WIDTH / max(int(both.max()), 1)
    for i in range(int(used[0]), int(used[-1]) + 1) if len(used) else ():
        bar = "#" * round(found.kept_histogram[i] * scale) + "." * round(found.rejected_histogram[i] * scale)
        lines.append(f"{BINS[i]:5.2f} .. {BINS[i + 1]:5.2f} {bar:<{BAR_WIDTH + 1}} {both[i]}")
    return [*lines, "```"]


def _limits(plan: SavedPlan) -> list[str]:
    chosen = plan.settings.get("filter", {})
    return [
        "",
        "## Limits",
        "",
        "- Written by a machine and checked by a machine: nobody has read these captions.",
        f"- The filter (encoder `{chosen.get('encoder')}`, similarity at least {chosen.get('min_similarity')}, margin"
        f" at least {chosen.get('min_margin')}) lets some hallucinations pass and rejects some faithful captions;"
        " `sclmkb-gen calibrate` measures how many.",
        "- Negations and additions are what a sentence encoder sees worst.",
        "- Wording, errors and prejudices of the language model are in the text.",
        "- `attempts` holds rejected texts too, among them what nobody should read.",
    ]
