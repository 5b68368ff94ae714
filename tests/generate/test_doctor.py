import pytest

from sclmkb.generate import doctor


def test_everything_is_found_where_everything_is_installed() -> None:
    assert [check for check in doctor.run_checks() if check.mend] == []
    assert "vLLM" in doctor.engine_in_use()


def test_what_is_missing_comes_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.util.find_spec
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None if name == "vllm" else real(name))
    missing = [check for check in doctor.run_checks() if check.mend]
    assert [(check.name, check.found) for check in missing] == [("vllm", "")]
    assert "pip install" in missing[0].mend
    assert doctor.engine_in_use().startswith("none")


def test_cuda_torchvision_beside_a_cpu_torch_is_a_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.28.0" if name == "torchvision" else real(name))
    monkeypatch.setattr("torch.version.cuda", None)
    traps = [check for check in doctor.run_checks() if "uninstall torchvision" in check.mend]
    assert len(traps) == 1
