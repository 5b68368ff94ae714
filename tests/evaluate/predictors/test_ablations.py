from sclmkb.evaluate.predictors.ablations import Predictor, ablations, find_reference


def predictor(system: str, kind: str = "cdg", **settings: object) -> Predictor:
    return Predictor(system=system, kind=kind, settings={"backbone": "pretrained", "ce_weight": 0.1} | settings)


def test_ablations_are_found_by_the_settings_that_differ() -> None:
    all_of_them = [
        predictor("zero", ce_weight=0),
        predictor("cdg"),
        predictor("random", backbone="random"),
        predictor("both", backbone="none", ce_weight=0),
        predictor("gru", kind="gru", ce_weight=0),
        predictor("wide", width=256),
    ]
    reference = find_reference(all_of_them)
    assert reference is not None
    assert reference.system == "cdg"
    found = [(names, other.system) for names, other in ablations(all_of_them, reference)]
    assert found == [
        (("backbone",), "random"),
        (("ce_weight",), "zero"),
        (("width",), "wide"),  # the reference has none
        (("backbone", "ce_weight"), "both"),
    ]
    assert find_reference([predictor("one"), predictor("two", kind="gru")]) is None
    assert find_reference([]) is None
