"""Which cells a study has: corpora, captions, CSI, predictors, trainings and measurements, in that order.

::

    csi/SCENARIO ─► csi/SCENARIO-Bbit ─► predictors/NAME ─► predicted/NAME/SCENARIO-Bbit ─┐
    CORPUS/corpus ─► CORPUS/sdg, CORPUS/backbone/seed-N ──────────────────────────────────┴─► CORPUS/jscc/SYSTEM/seed-N
                                                     CORPUS/eval/SCENARIO-Bbit/SYSTEM  ◄──────────────────┘

All CSI goes through feedback of B bits per report before anything reads it, histories included. The base station of
every system knows the same. Training uses ``feedback_bits`` on UMi-LOS. Other bits and UMa-NLOS are measured with what
was trained there. The code book is part of a cell site and fitted to its own scenario, for every system the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Planner, Study, sets
from sclmkb.evaluate.studies.sc_lmkb.settings import (
    MAIN,
    NO_LINK,
    PREDICTOR_OPTIONS,
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


PARTS = {
    "captions": "Corpora and generated captions",
    "csi": "CSI, feedback and predictors",
    "training": "Trainings",
    "evaluation": "Measurements",
}


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
    """Return every cell of a study; corpora that the folder ``data`` lacks are left out.

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
    paper = _Paper(settings, data, Planner(out))
    paper.planner.part = "captions"
    for name, corpus in found.items():
        paper.captions(name, corpus)
    paper.planner.part = "csi"
    paper.channels()
    paper.predictors({of.predictor for c in found.values() for of in settings.chosen(c).values() if of.predictor})
    for name, corpus in found.items():
        paper.planner.part = "training"
        paper.trainings(name, corpus)
        paper.planner.part = "evaluation"
        paper.measurements(name, corpus)
    inputs = {"DATA": data} if data else {}
    return Study(name="paper", out=out, cells=paper.planner.cells, parts=PARTS, missing=missing, inputs=inputs)


@dataclass
class _Paper:
    settings: PaperSettings
    data: Path | None
    planner: Planner

    @property
    def out(self) -> Path:
        return self.planner.out

    @property
    def seeds(self) -> str:
        """The setting that keeps checkpoints of other seeds, of an earlier study there, out of a measurement."""
        return f"seeds={json.dumps(list(self.settings.seeds))}"

    def threads(self) -> list[str]:
        return sets(f"threads={self.settings.threads}")

    def captions(self, name: str, corpus: CorpusSettings) -> None:
        """Add a corpus and its generated captions."""
        root = ["--root", self.data / corpus.root] if corpus.root and self.data else []
        preset = ["--preset", self.settings.gen_preset] if self.settings.gen_preset else []
        source = self.planner.add(f"{name}/corpus", "sclmkb-gen", "corpus", corpus.reader, *root, *preset)
        own = ["--corpus", source, *sets(*corpus.sdg)]
        self.planner.add(f"{name}/sdg", "sclmkb-gen", "sdg", *preset, *own, cores=0)

    def channels(self) -> None:
        """Add the CSI of both scenarios and sectors, and what feedback leaves of it."""
        settings = self.settings
        for seed, scenario in enumerate((TRAINED, ZERO_SHOT)):
            made = ["sclmkb-gen", "csi", "--scenario", scenario, *sets(f"speed_kmh={settings.speed_kmh:g}")]
            made += ["--workers", str(settings.threads), "--seed"]
            self.planner.add(f"csi/{scenario}", *made, seed, *sets(*settings.csi))
            self.planner.add(f"csi/map-{scenario}", *made, 10 + seed, *sets(f"users={settings.map_users}"))
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
        self.planner.add(f"csi/{csi_name(source, bits)}", "sclmkb-gen", "csi-feedback", *own)

    def predictors(self, used: set[str]) -> None:
        """Add the predictors of CSI, what they predict, and their NMSE."""
        settings, csi = self.settings, self.out / "csi"
        learnt, *others = [csi_name(TRAINED, bits) for bits in self.bits()]
        others.append(csi_name(ZERO_SHOT, settings.feedback_bits))
        swept = {SYSTEMS[system].predictor for system in SWEPT}
        chosen = [name for name in PREDICTOR_OPTIONS if name in used]
        for name in chosen:
            own = [*PREDICTOR_OPTIONS[name], "--seed", settings.predictor_seed, "--csi", csi / learnt]
            own += [*sets("histories=stored", *settings.predictor), *self.threads()]
            self.planner.add(f"predictors/{name}", "sclmkb-train", "cdg", *own)
            self.predict(name, learnt)
            for source in others if name in swept else []:
                self.predict(name, source, *sets("splits=[test]"))
        maps = [csi_name(f"map-{scenario}", settings.feedback_bits) for scenario in (TRAINED, ZERO_SHOT)]
        own = [word for name in maps for word in ("--csi", csi / name)]
        shown = [name for name in ("csi_llm", "llm4cp", "cdg") if name in chosen]
        own += ["--checkpoints", self.out / "predictors", *sets(f"map_systems={json.dumps(shown)}"), *self.threads()]
        self.planner.add(CSI_EVAL, "sclmkb-eval", "csi", *own)

    def predict(self, name: str, source: str, *more: str) -> None:
        own = ["--csi", self.out / "csi" / source, "--checkpoint", self.out / "predictors" / name]
        self.planner.add(f"predicted/{name}/{source}", "sclmkb-gen", "cdg", *own, *self.threads(), *more)

    def trainings(self, name: str, corpus: CorpusSettings) -> None:
        """Add every seed of every system, and of the backbone whose media encoder they keep."""
        condition = csi_name(TRAINED, self.settings.feedback_bits)
        self.backbones(name, corpus)
        for system, of in self.settings.chosen(corpus).items():
            own = self.inputs(name, system, of, condition)
            if of.sdg:
                own += ["--sdg", self.out / name / "sdg"]
            own += [*sets(*corpus.train, *of.sets), *self.threads()]
            for seed in self.settings.seeds:
                command = ["sclmkb-train", "jscc", "--preset", corpus.preset, "--system", system, "--seed", seed]
                command += ["--csi-source", of.csi_source, *own]
                if corpus.backbone is not None:
                    command += ["--media-from", self.out / backbone_name(name, seed)]
                self.planner.add(f"{name}/jscc/{system}/seed-{seed}", *command)

    def backbones(self, name: str, corpus: CorpusSettings) -> None:
        """Add retrieval backbones: source captions, nothing between encoder and decoder."""
        if corpus.backbone is None:
            return
        own = [*sets("link.channel=none", *corpus.train, *corpus.backbone), *self.threads()]
        for seed in self.settings.seeds:
            command = ["sclmkb-train", "jscc", "--preset", corpus.preset, "--system", "backbone", "--seed", seed]
            command += ["--csi-source", "perfect", "--corpus", self.out / name / "corpus", *own]
            self.planner.add(backbone_name(name, seed), *command)

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
        trained = self.out / name / "jscc"
        for system, of in systems.items():
            own = self.inputs(name, system, of, condition)
            own += [*sets(f"snrs_db={json.dumps(list(snrs_db))}", self.seeds), *self.threads()]
            command = ["sclmkb-eval", "run", "--checkpoints", trained / system, *own]
            self.planner.add(eval_name(name, condition, system), *command)
        if self.settings.sscc and NO_LINK in self.settings.systems:
            own = ["--corpus", self.out / name / "corpus", "--csi", self.out / "csi" / condition]
            own += ["--eval", self.out / eval_name(name, condition, MAIN)]
            own += [*sets("csi_source=stale", self.seeds, *self.settings.sscc_settings), *self.threads()]
            command = ["sclmkb-eval", "sscc", "--checkpoints", trained / NO_LINK, *own]
            self.planner.add(eval_name(name, condition, SSCC), *command)

    def inputs(self, name: str, system: str, of: SystemSettings, condition: str) -> list[object]:
        """Return the options that name corpus and CSI."""
        options: list[object] = ["--corpus", self.out / name / "corpus"]
        if system != NO_LINK:
            options += ["--csi", self.out / "csi" / condition]
        if of.predictor:
            options += ["--predicted", self.out / "predicted" / of.predictor / condition]
        return options
