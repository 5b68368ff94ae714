"""The commands of ``sclmkb-gen`` that write corpora, as artifacts and for other trainers."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.artifacts.storage import FOLDER, LOCAL
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.options import PresetOption, RunOptions, preset_folder, takes_run_options


@takes_run_options
def corpus(
    name: Annotated[
        str,
        typer.Argument(
            help="people-emoji or emoji; easy-vqa, cifar10, emoji-animations; with --root cuhk-pedes, icfg-pedes,"
            " rstpreid, kit-ml, bandai-motion, clotho, esc10, audiocaps, daquar, vqav2, coco-captions, flickr8k,"
            " exercises, msrvtt or table."
        ),
    ] = "people-emoji",
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of the data; for table also a file or a hub name.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    max_groups: Annotated[
        int | None,
        typer.Option("--max-groups", help="Number of base emoji to use (people-emoji, emoji); default: all."),
    ] = None,
    *,
    run: RunOptions,
) -> None:
    """Write texts with their splits, and pictures, motion, sound or video: your data, or people emoji by default.

    Emoji, easy-vqa and cifar10 are fetched by npm or installed by pip. The other layouts are read from --root. Entries
    that cannot be read are listed in the table problems. Often set: media=path, embed or none; for table also
    columns.caption=text, columns.identity=..., columns.split=..., columns.media=.... docs/corpora.md has all layouts.
    """
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.corpora.embedded import EMOJI, plan_emoji
    from sclmkb.generate.corpora.layouts import LAYOUTS
    from sclmkb.generate.corpora.on_disk import corpus_lines, plan_corpus

    folder = out or preset_folder(run.preset) / "corpus"
    runner = choose_executor(run, "corpus", folder)
    if name in LAYOUTS:
        layout = LAYOUTS[name]
        root = root or layout.find_root()
        if root is None or max_groups is not None:
            raise UserError(f"corpus {name} needs --root, where the data lie, and takes no --max-groups")
        settings = layout.settings_type.resolve(presets="sclmkb.generate", section=name, **run.layers)
        work = plan_corpus(layout(root, settings), folder, new_run=run.new_run, join=run.join)
    elif name in EMOJI:
        if root is not None:
            raise UserError(f"corpus {name} is fetched and takes no --root")
        section, kind = EMOJI[name]
        options = {"max_groups": max_groups}
        emoji = kind.resolve(presets="sclmkb.generate", section=section, **run.layers, options=options)
        work = plan_emoji(emoji, folder, new_run=run.new_run, join=run.join)
    else:
        raise UserError(f"unknown corpus '{name}': there are {', '.join((*EMOJI, *LAYOUTS))}")
    if artifact := runner.execute(work):
        for line in corpus_lines(artifact):
            say(f"corpus: {line}")


def export(
    sdg: Annotated[Path | None, typer.Option("--sdg", help="Folder of the generated captions.", **FOLDER)] = None,
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of their corpus.", **FOLDER)] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl, cuhk-pedes, icfg-pedes or rstpreid.")] = "jsonl",
    out: Annotated[Path | None, typer.Option("--out", help="File to write, by default under export/.", **LOCAL)] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Also write embedded pictures to imgs/ beside the file.")
    ] = False,
    preset: PresetOption = None,
) -> None:
    """Write a corpus with its accepted generated captions to one file that other trainers read.

    Generated captions join only the training split. The PEDES formats are the official annotation files with longer
    lists of captions; jsonl has one line per caption; read it with: corpus table --root FILE.
    """
    from sclmkb.generate.corpora.export import export as write
    from sclmkb.generate.corpora.export import file_name

    home = preset_folder(preset)
    target = out or home / "export" / file_name(form)
    done = write(corpus_dir or home / "corpus", sdg or home / "sdg", target, form, images=images)
    say(f"export: {done.path} holds {done.items} items, {done.captions} captions and {done.generated} generated ones")
    if done.renumbered:
        say("export: persons got new numbers, training ones first and without gaps")
