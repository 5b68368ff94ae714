"""Which cells a study has: corpora, captions, CSI, predictors, trainings and measurements, in that order.

::

    csi/SCENARIO ─► csi/SCENARIO-Bbit ─► predictors/NAME ─► predicted/NAME/SCENARIO-Bbit ─┐
    CORPUS/corpus ─► CORPUS/sdg, CORPUS/backbone/seed-N ──────────────────────────────────┴─► CORPUS/jscc/SYSTEM/seed-N
                                                     CORPUS/eval/SCENARIO-Bbit/SYSTEM  ◄──────────────────┘

All CSI goes through feedback of B bits a report before anything reads it, histories included: the base station of every
system knows the same. Trained is at ``feedback_bits`` on UMi-LOS; other bits and UMa-NLOS are measured with what was
trained there. The code book is part of a cell site and fitted to its own scenario, for every system the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sclmkb.common.errors import UserError
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell, Study
from sclmkb.evaluate.studies.sc_lmkb.settings import (
    MAIN,
    NO_LINK,
    PREDICTORS,
    SSCC,
    SYSTEMS,
    CorpusSettings,
    PaperSettings,
    SystemSettings,
)

TRAINED, ZERO_SHOT = "umi-los", "uma-nlos"
"""Scenarios of the paper: all that is trained is trained on the first."""

CSI_EVAL = "csi-eval"
"""Name of the cell that measures the predictors on both sectors."""

SWEPT = (MAIN, "deepsc-mimo", "csi-llm", "llm4cp")
"""Systems of Fig. 9 and 10, beside SSCC."""


def csi_name(scenario: str, bits: int) -> str:
    """Return the name of the CSI of a scenario after feedback."""
    return f"{scenario}-{bits}bit"


def eval_name(corpus: str, condition: str, system: str) -> str:
    """Return the name of the cell that measures a system on a CSI artifact."""
    return f"{corpus}/eval/{condition}/{system}"


def backbone_name(corpus: str, seed: int) -> str:
    """Return the name of the cell that trains the media encoder of a seed."""
    return f"{corpus}/backbone/seed-{seed}"


def make_study(settings: PaperSettings, out: Path, data: Path | None) -> Study:
    """Return every cell of a study.

    Args:
        settings: what to measure.
        out: folder of the study.
        data: folder with the corpora that are not embedded; those it lacks are left out.

    Raises:
        UserError: if no corpus is left.
    """
    found, missing = {}, {}
    for name, corpus in settings.corpora.items():
        if corpus.root is None:
            found[name] = corpus
        elif data is None:
            missing[name] = f"no folder was named with --data, it would be {corpus.root} there"
        elif not (data / corpus.root).is_dir():
            missing[name] = f"no folder {data / corpus.root}"
        else:
            found[name] = corpus
    if not found:
        name, why = next(iter(missing.items()))
        raise UserError(f"no corpus is left to measure on; {name}: {why}")
    planner = _Planner(settings, out, data)
    for name, corpus in found.items():
        planner.captions(name, corpus)
    planner.channels()
    planner.predictors({of.predictor for c in found.values() for of in settings.chosen(c).values() if of.predictor})
    for name, corpus in found.items():
        planner.trainings(name, corpus)
        planner.measurements(name, corpus)
    return Study(out=out, cells=planner.cells, missing=missing, data=data)


@dataclass
class _Planner:
    settings: PaperSettings
    out: Path
    data: Path | None
    cells: dict[str, Cell] = field(default_factory=dict)

    def add(self, name: str, *words: object, needs: Sequence[str] = (), cores: int = 1) -> None:
        out = self.out / name
        command = (*(str(word) for word in words), "--out", str(out))
        self.cells[name] = Cell(name=name, command=command, out=out, needs=tuple(needs), cores=cores)

    @property
    def seeds(self) -> str:
        """The setting that keeps checkpoints of other seeds, of an earlier study there, out of a measurement."""
        return f"seeds={json.dumps(list(self.settings.seeds))}"

    def threads(self) -> list[str]:
        return _sets(f"threads={self.settings.threads}")

    def captions(self, name: str, corpus: CorpusSettings) -> None:
        """Add a corpus and its generated captions."""
        root = ["--root", self.data / corpus.root] if corpus.root and self.data else []
        preset = ["--preset", self.settings.gen_preset] if self.settings.gen_preset else []
        source, made = f"{name}/corpus", f"{name}/sdg"
        self.add(source, "sclmkb-gen", "corpus", corpus.reader, *root, *preset)
        own = ["--corpus", self.out / source, *_sets(*corpus.sdg)]
        self.add(made, "sclmkb-gen", "sdg", *preset, *own, needs=[source], cores=0)

    def channels(self) -> None:
        """Add the CSI of both scenarios and sectors, and what feedback leaves of it."""
        settings = self.settings
        for seed, scenario in enumerate((TRAINED, ZERO_SHOT)):
            made = ["sclmkb-gen", "csi", "--scenario", scenario, *_sets(f"speed_kmh={settings.speed_kmh:g}")]
            made += ["--workers", str(settings.threads), "--seed"]
            self.add(f"csi/{scenario}", *made, seed, *_sets(*settings.csi))
            self.add(f"csi/map-{scenario}", *made, 10 + seed, *_sets(f"users={settings.map_users}"))
            for bits in self.bits() if scenario == TRAINED else (settings.feedback_bits,):
                self.feedback(scenario, scenario, bits)
            self.feedback(f"map-{scenario}", scenario, settings.feedback_bits)

    def bits(self) -> list[int]:
        """Return the bits of a report that are measured; first those that the transceiver is trained with."""
        main = self.settings.feedback_bits
        return [main, *sorted(set(self.settings.swept_bits) - {main}, reverse=True)]

    def feedback(self, source: str, fitted: str, bits: int) -> None:
        csi = self.out / "csi"
        fit = [] if source == fitted else ["--fit", csi / fitted]
        own = ["--csi", csi / source, "--bits", bits, *fit, *self.threads()]
        needs = [f"csi/{name}" for name in dict.fromkeys((source, fitted))]
        self.add(f"csi/{csi_name(source, bits)}", "sclmkb-gen", "csi-feedback", *own, needs=needs)

    def predictors(self, used: set[str]) -> None:
        """Add the predictors of CSI, what they predict, and their NMSE."""
        settings, csi = self.settings, self.out / "csi"
        learnt, *others = [csi_name(TRAINED, bits) for bits in self.bits()]
        others.append(csi_name(ZERO_SHOT, settings.feedback_bits))
        swept = {SYSTEMS[system].predictor for system in SWEPT}
        chosen = [name for name in PREDICTORS if name in used]
        for name in chosen:
            own = [*PREDICTORS[name], "--seed", settings.predictor_seed, "--csi", csi / learnt]
            own += [*_sets("histories=stored", *settings.predictor), *self.threads()]
            self.add(f"predictors/{name}", "sclmkb-train", "cdg", *own, needs=[f"csi/{learnt}"])
            self.predict(name, learnt)
            for source in others if name in swept else []:
                self.predict(name, source, *_sets("splits=[test]"))
        maps = [f"csi/{csi_name(f'map-{scenario}', settings.feedback_bits)}" for scenario in (TRAINED, ZERO_SHOT)]
        own = [word for name in maps for word in ("--csi", self.out / name)]
        shown = [name for name in ("csi_llm", "llm4cp", "cdg") if name in chosen]
        own += ["--checkpoints", self.out / "predictors", *_sets(f"map_systems={json.dumps(shown)}"), *self.threads()]
        self.add(CSI_EVAL, "sclmkb-eval", "csi", *own, needs=[*maps, *(f"predictors/{name}" for name in chosen)])

    def predict(self, name: str, source: str, *more: str) -> None:
        own = ["--csi", self.out / "csi" / source, "--checkpoint", self.out / "predictors" / name]
        needs = [f"csi/{source}", f"predictors/{name}"]
        self.add(f"predicted/{name}/{source}", "sclmkb-gen", "cdg", *own, *self.threads(), *more, needs=needs)

    def trainings(self, name: str, corpus: CorpusSettings) -> None:
        """Add every seed of every system, and of the backbone whose media encoder they keep."""
        condition = csi_name(TRAINED, self.settings.feedback_bits)
        self.backbones(name, corpus)
        for system, of in self.settings.chosen(corpus).items():
            own, needs = self.inputs(name, system, of, condition)
            if of.sdg:
                own += ["--sdg", self.out / name / "sdg"]
                needs.append(f"{name}/sdg")
            own += [*_sets(*corpus.train, *of.sets), *self.threads()]
            for seed in self.settings.seeds:
                command = ["sclmkb-train", "jscc", "--preset", corpus.preset, "--system", system, "--seed", seed]
                command += ["--csi-source", of.csi_source, *own]
                kept = [backbone_name(name, seed)] if corpus.backbone is not None else []
                command += [word for cell in kept for word in ("--media-from", self.out / cell)]
                self.add(f"{name}/jscc/{system}/seed-{seed}", *command, needs=[*needs, *kept])

    def backbones(self, name: str, corpus: CorpusSettings) -> None:
        """Add retrieval backbones: source captions, nothing between encoder and decoder."""
        if corpus.backbone is None:
            return
        source = f"{name}/corpus"
        own = [*_sets("link.channel=none", *corpus.train, *corpus.backbone), *self.threads()]
        for seed in self.settings.seeds:
            command = ["sclmkb-train", "jscc", "--preset", corpus.preset, "--system", "backbone", "--seed", seed]
            command += ["--csi-source", "perfect", "--corpus", self.out / source, *own]
            self.add(backbone_name(name, seed), *command, needs=[source])

    def measurements(self, name: str, corpus: CorpusSettings) -> None:
        """Add what measures the systems: where they were trained, and for Fig. 9 and 10 elsewhere."""
        settings = self.settings
        systems = settings.chosen(corpus)
        self.measure(name, systems, csi_name(TRAINED, settings.feedback_bits), settings.snrs_db)
        if corpus.ablation:
            swept = {system: of for system, of in systems.items() if system in SWEPT}
            self.measure(name, swept, csi_name(ZERO_SHOT, settings.feedback_bits), settings.snrs_db)
            for bits in self.bits()[1:]:
                self.measure(name, swept, csi_name(TRAINED, bits), (settings.swept_snr_db,))

    def measure(
        self, name: str, systems: Mapping[str, SystemSettings], condition: str, snrs_db: Sequence[float]
    ) -> None:
        """Add a cell for all seeds of each system under one condition, and one for SSCC."""
        for system, of in systems.items():
            own, needs = self.inputs(name, system, of, condition)
            trained = [f"{name}/jscc/{system}/seed-{seed}" for seed in self.settings.seeds]
            own += [*_sets(f"snrs_db={json.dumps(list(snrs_db))}", self.seeds), *self.threads()]
            command = ["sclmkb-eval", "run", "--checkpoints", self.out / name / "jscc" / system, *own]
            self.add(eval_name(name, condition, system), *command, needs=[*trained, *needs])
        if self.settings.sscc and NO_LINK in self.settings.systems:
            compared = eval_name(name, condition, MAIN)
            trained = [f"{name}/jscc/{NO_LINK}/seed-{seed}" for seed in self.settings.seeds]
            own = ["--corpus", self.out / name / "corpus", "--csi", self.out / "csi" / condition]
            own += ["--eval", self.out / compared, *_sets("csi_source=stale", self.seeds, *self.settings.sscc_settings)]
            own += self.threads()
            command = ["sclmkb-eval", "sscc", "--checkpoints", self.out / name / "jscc" / NO_LINK, *own]
            needs = [*trained, compared, f"{name}/corpus", f"csi/{condition}"]
            self.add(eval_name(name, condition, SSCC), *command, needs=needs)

    def inputs(self, name: str, system: str, of: SystemSettings, condition: str) -> tuple[list[object], list[str]]:
        """Return the options that name corpus and CSI, and the cells that make them."""
        options: list[object] = ["--corpus", self.out / name / "corpus"]
        needs = [f"{name}/corpus"]
        if system != NO_LINK:
            options += ["--csi", self.out / "csi" / condition]
            needs.append(f"csi/{condition}")
        if of.predictor:
            options += ["--predicted", self.out / "predicted" / of.predictor / condition]
            needs.append(f"predicted/{of.predictor}/{condition}")
        return options, needs


def _sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]
