import json
from pathlib import Path

import pytest
import torch
from commands import Done, must_run, run_command
from media_corpora import write_clips, write_pictures, write_questions, write_sounds
from safetensors.torch import load_file

from sclmkb.common.models.lam.rate import LossPredictor
from sclmkb.common.tasks.media.trained import TrainedMtsc
from sclmkb.train.multitask.trainer import MtscTraining


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("corpora")
    roots = [write_questions(root / "questions"), write_pictures(root / "pictures")]
    return [word for path in roots for word in ("--corpus", str(path))]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path_factory.getbasetemp() / "mtsc-cache"))


def train(corpora: list[str], out: Path, *more: str) -> list[str | Path]:
    return ["sclmkb-train", "mtsc", "--preset", "tiny", *corpora, "--out", out, *more]


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "model.safetensors")


def test_both_tasks_are_trained_and_loaded_again(corpora: list[str], tmp_path: Path) -> None:
    done = must_run(train(corpora, tmp_path / "run"))
    assert "validation score" in done.err
    measured = json.loads((tmp_path / "run" / "config.json").read_text())["measured"]
    assert measured["step"] in (6, 8)
    model, saved = TrainedMtsc.load(tmp_path / "run").model(), weights(tmp_path / "run")
    assert {name for name, p in model.named_parameters() if p.requires_grad} <= set(saved)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in saved.items())


def test_a_killed_run_resumes_to_the_same_weights(
    corpora: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    must_run(train(corpora, tmp_path / "whole"))
    step_of = MtscTraining.train_step

    def killed(self: MtscTraining, step: int) -> object:
        if step == 5:
            raise KeyboardInterrupt
        return step_of(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(MtscTraining, "train_step", killed)
        assert run_command(train(corpora, tmp_path / "killed")).code == 130
    must_run(train(corpora, tmp_path / "killed"))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("architecture", ["mtsc", "u-deepsc"])
def test_training_learns_to_look_at_the_picture(corpora: list[str], tmp_path: Path, architecture: str) -> None:
    """Without the picture, half of the questions about its colour are answered at best a third of the time."""
    longer = [
        f"model.architecture={architecture}",
        "num_steps=120",
        "answer.batch_size=32",
        "learning_rate=0.005",
        "min_snr_db=5",
        "num_validations=1",
    ]
    must_run(train(corpora, tmp_path / "run", "--tasks", "answer", *(w for o in longer for w in ("--set", o))))
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["val_answer_accuracy"] > 0.85


def test_sounds_and_clips_are_captioned_beside_pictures(corpora: list[str], tmp_path: Path) -> None:
    roots = [write_sounds(tmp_path / "sounds"), write_clips(tmp_path / "clips")]
    more = [word for root in roots for word in ("--corpus", str(root))]
    more += ["--tasks", "answer,caption_sound,caption_video"]
    longer = ["num_steps=60", "learning_rate=0.005", "min_snr_db=5", "num_validations=1"]
    must_run(train([*corpora, *more], tmp_path / "run", *(w for o in longer for w in ("--set", o))))
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_caption_sound_cider"] > 2
    assert last["val_caption_video_cider"] > 2


@pytest.mark.parametrize("tune", ["lora", "frozen"])
def test_what_is_not_trained_stays_as_it_was(corpora: list[str], tmp_path: Path, tune: str) -> None:
    must_run(train(corpora, tmp_path / "run", "--set", f"model.language_model.tune={tune}", "--tasks", "answer"))
    trained = [name for name in weights(tmp_path / "run") if name.startswith("language_model.encoder")]
    assert all("lora" in name for name in trained)
    assert bool(trained) == (tune == "lora")


@pytest.mark.parametrize("codec", ["film, channels: 8", "deepjscc, channels: 8", "adjscc, channels: 8", "transformer"])
def test_pictures_alone_need_no_language_model(corpora: list[str], tmp_path: Path, codec: str) -> None:
    options = ["--tasks", "reconstruct", "--model", "not-there", "--set", f"model.codec={{kind: {codec}}}"]
    must_run(train(corpora, tmp_path / "run", *options))
    model = TrainedMtsc.load(tmp_path / "run").model()
    assert model.codec is not None
    assert type(model.codec).__module__.endswith(codec.split(",")[0])
    assert sum(p.numel() for p in model.language_model.parameters()) < 10_000


def refused(command: list[str | Path]) -> Done:
    done = run_command(command)
    assert done.code == 2
    assert "Traceback" not in done.err
    return done


def test_bad_input_is_one_line(corpora: list[str], tmp_path: Path, tiny_lm: Path) -> None:
    pictures, out = corpora[2:], tmp_path / "run"
    assert "role 'answer'" in refused(train(pictures, out, "--tasks", "answer")).err
    assert "encoder-decoder" in refused(train(corpora, out, "--model", str(tiny_lm))).err
    assert "num_tokens" in refused(train(corpora, out, "--set", "model.answer_uses=7")).err
    assert "reconstruct" in refused(train(corpora, out, "--tasks", "dance")).err
    assert not out.exists()


def test_a_task_without_a_corpus_is_left_out(corpora: list[str], tmp_path: Path) -> None:
    folder = ["--corpus", str(Path(corpora[1]).parent)]
    done = must_run(train(folder, tmp_path / "run", "--tasks", "caption,answer,reconstruct"))
    assert "caption is left out: task caption needs a corpus of pictures with texts of role 'caption'" in done.err
    assert TrainedMtsc.load(tmp_path / "run").settings.tasks == ("answer", "reconstruct")


def test_what_predicts_losses_learns_at_a_rate_of_its_own(
    corpora: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, float] = {}

    def stopped(self: MtscTraining, step: int) -> object:
        names = {id(p): name for name, p in self.model.named_parameters()}
        for group in self.state.optimizer.param_groups:
            seen.update({names[id(p)]: group["initial_lr"] for p in group["params"]})
        raise KeyboardInterrupt

    monkeypatch.setattr(MtscTraining, "train_step", stopped)
    run_command(train(corpora, tmp_path / "run", "--set", "model.rate=nested", "--set", "learning_rate=0.002"))
    of = {name: rate for name, rate in seen.items() if name.startswith("loss_predictors.")}
    assert set(of.values()) == {LossPredictor.learning_rate}
    assert LossPredictor.learning_rate not in {rate for name, rate in seen.items() if name not in of}
