"""What the multi-task transceiver is held to in speed and memory. One run prints:

- training: a step over AWGN, over one of the same model whose symbols arrive as they were sent; turns in alternation;
- captions: samples one at a time, over batches of 128, from the fusion center to the written text;
- features: media that the frozen encoder is given in a second reading of a split: none;
- sweep: 8 SNRs over one, as ``sclmkb-eval mtsc`` measures them: the fusion center works once;
- memory: by how much more the peak of a training is for ten times the pictures.

The language model has the width of Flan-T5-small and two layers, with random weights. It writes 3 tokens as answers and
12 as captions. Media are small and of one colour. Run it on a quiet machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_link import alternate
from torch import Tensor
from verdict import sized, verdict

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import console, limit_threads
from sclmkb.common.link.uses import Draws, UsesChannelSettings, sample_draws
from sclmkb.common.models.lam import features
from sclmkb.common.models.lam.frozen import Patches
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.receive import Kept, outputs_of
from sclmkb.common.tasks.media.trained import MtscSettings
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.multitask.data import Splits, load_splits
from sclmkb.train.multitask.trainer import MtscTraining

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from media_corpora import write_clips, write_questions

STEP_BOUND = 1.15
BATCH_BOUND = 8.0
SWEEP_BOUND = 2.5
MEMORY_BOUND_GB = 0.1
"""For 9,000 more pictures and 18,000 more questions."""
SNRS_DB = tuple(float(snr) for snr in range(-12, 12, 3))


@dataclass(frozen=True)
class Unchanged:
    """A channel that changes nothing."""

    def convey(self, symbols: Tensor, sent: Tensor, snr_db: Tensor, draws: Draws) -> Tensor:
        """Return the symbols."""
        return symbols


def settings_for(task: str, **more: Any) -> MtscSettings:
    """Return the settings of a training of one task."""
    language_model = {"name": "scratch", "width": sized(512, 32), "layers": 2}
    model: dict[str, Any] = {
        "language_model": language_model,
        "picture_encoder": "patches",
        "picture_grid": 2,
        "video_frames": 4,
    }
    model["max_text_tokens"] = 3 if task == "answer" else 12  # with random weights, no text ends earlier
    return MtscSettings.model_validate({"tasks": (task,), "model": model, **more})


def training_of(corpus: Path, settings: MtscSettings) -> MtscTraining:
    """Return a training in memory."""
    accelerator = start_accelerator(settings.precision, cpu_bfloat16=False)
    return MtscTraining(settings, load_splits(settings, [Artifact.open(corpus, "corpus")]), accelerator)


def step_ratio(corpus: Path, steps: int) -> float:
    """Return the time of a training step with the link over that of one without."""
    with_link, without = (training_of(corpus, settings_for("answer")) for _ in range(2))
    parts = {**vars(without.data), "train_channel": Unchanged()}
    without.data = Splits(**parts)
    numbers = {name: iter(range(10**6)) for name in ("link", "none")}
    seconds = alternate(
        steps,
        link=lambda: with_link.train_step(next(numbers["link"])),
        none=lambda: without.train_step(next(numbers["none"])),
    )
    print(f"training step: with the link {1e3 * seconds['link']:.1f} ms, without {1e3 * seconds['none']:.1f} ms")
    return seconds["link"] / seconds["none"]


def sends(training: MtscTraining, task: str, data: TaskData) -> Callable[..., object]:
    """Return what sends some samples at some SNRs."""
    model = training.model.eval()

    def send(rows: Tensor, snrs_db: tuple[float, ...]) -> None:
        kept: Kept = {}
        for snr_db in snrs_db:
            draws = sample_draws(0, rows.tolist())
            outputs_of(model, UsesChannelSettings(), data, rows, task, snr_db, draws, kept=kept)

    return send


def batch_ratio(corpus: Path, count: int, rounds: int) -> float:
    """Return the time of captions one at a time over that of batches."""
    training = training_of(corpus, settings_for("caption_video"))
    data = training.data.train["caption_video"]
    send, rows = sends(training, "caption_video", data), torch.arange(count) % len(data)
    seconds = alternate(
        rounds, batch=lambda: send(rows, (0.0,)), loop=lambda: [send(rows[i : i + 1], (0.0,)) for i in range(count)]
    )
    print(f"{count} captions: in batches {seconds['batch']:.2f} s, one at a time {seconds['loop']:.2f} s")
    return seconds["loop"] / seconds["batch"]


def sweep_ratio(corpus: Path, count: int, rounds: int) -> float:
    """Return the time of 8 SNRs over that of one."""
    training = training_of(corpus, settings_for("answer"))
    data = training.data.train["answer"]
    send, rows = sends(training, "answer", data), torch.arange(count) % len(data)
    seconds = alternate(rounds, one=lambda: send(rows, SNRS_DB[:1]), all=lambda: send(rows, SNRS_DB))
    print(f"{count} answers: one SNR {seconds['one']:.2f} s, {len(SNRS_DB)} SNRs {seconds['all']:.2f} s")
    return seconds["all"] / seconds["one"]


def media_read_again(corpus: Path, cache: Path) -> int:
    """Return how many media the frozen encoder is given when a split is read a second time."""
    given = []

    class Counting(Patches):
        def tokens(self, batch: Any) -> Tensor:
            given.append(len(batch.values))
            return super().tokens(batch)

    encoder, source = Counting(settings_for("answer").model), Artifact.open(corpus, "corpus")
    features.open_features(source, "train", encoder, cache)
    first = sum(given)
    features.open_features(source, "train", encoder, cache)
    print(f"frozen encoder: {first} media in the first reading, {sum(given) - first} in the second")
    return sum(given) - first


def peak_gb(corpus: Path) -> float:
    """Return the peak of memory of a process that trains for two steps."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(corpus)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> int:
    """Run all parts and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    console.quiet = True
    limit_threads(args.threads)
    if args.measure is not None:
        training = training_of(args.measure, settings_for("answer"))
        for step in range(2):
            training.train_step(step)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["SCLMKB_CACHE"] = str(root / "cache")
        few, many = sized(1000, 20), sized(10_000, 40)
        questions = write_questions(root / "questions", {"train": few, "val": 20})
        more = write_questions(root / "more", {"train": many, "val": 20})
        clips = write_clips(root / "clips", {"train": sized(256, 20), "val": 20})
        step = step_ratio(questions, sized(30, 1))
        batch = batch_ratio(clips, sized(256, 8), sized(3, 1))
        sweep = sweep_ratio(questions, sized(512, 16), sized(3, 1))
        again = media_read_again(questions, root / "features")
        peaks = [peak_gb(corpus) for corpus in (questions, more)]
        print(f"memory: {peaks[0]:.3f} GB with {few:,} pictures, {peaks[1]:.3f} GB with {many:,}")
        grown = peaks[1] - peaks[0]
    return verdict(
        [
            ("training step, with the link / without", step, STEP_BOUND, step <= STEP_BOUND),
            ("captions, one at a time / in batches", batch, BATCH_BOUND, batch >= BATCH_BOUND),
            ("8 SNRs / one", sweep, SWEEP_BOUND, sweep <= SWEEP_BOUND),
            ("media of the frozen encoder in a second reading", again, 0, again == 0),
            ("memory for ten times the pictures [GB]", grown, MEMORY_BOUND_GB, grown <= MEMORY_BOUND_GB),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
