from importlib import resources

import pytest

from sclmkb.common.tasks.trained import JsccSettings

NAMES = sorted(p.name.removesuffix(".yaml") for p in (resources.files("sclmkb.train") / "presets").iterdir())
KINDS = {
    "bandai-motion": "motion",
    "esc10": "audio",
    "paper-tmr-kit": "motion",
    "paper-tar-clotho": "audio",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_resolves_to_the_kind_of_media_it_is_for(name: str) -> None:
    settings = JsccSettings.resolve(presets="sclmkb.train", section="jscc", preset=name)
    assert settings.model.media.form().kind == KINDS.get(name, "pictures")


def test_the_presets_of_the_paper_are_there_and_say_what_it_leaves_open() -> None:
    paper = [name for name in NAMES if name.startswith("paper-")]
    assert paper == ["paper-tar-clotho", "paper-tmr-kit", "paper-tpr-cuhk", "paper-tpr-icfg", "paper-tpr-rstp"]
    for name in paper:
        text = (resources.files("sclmkb.train") / "presets" / f"{name}.yaml").read_text("utf-8")
        assert "# The paper states" in text
        assert "# The paper leaves open" in text
        settings = JsccSettings.resolve(presets="sclmkb.train", section="jscc", preset=name)
        assert (settings.receiver, settings.fusion) == ("literal", "cdfc")  # (5) and (29)
        assert settings.text.name.endswith(
            "bert-base-uncased" if name == "paper-tar-clotho" else "clip-vit-base-patch16"
        )
