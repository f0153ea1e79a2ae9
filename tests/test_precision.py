import pytest
import torch

from histoloom.precision import bf16_is_faster, use_bf16


def cpu(monkeypatch, tmp_path, *, amx: bool, avx512_bf16: bool, vendor: str):
    """What torch and Linux would say of a processor that is not at hand."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    description = tmp_path / "cpuinfo"
    description.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    return description


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "vendor", "faster"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
    ],
)
def test_bf16_is_for_amx_and_for_amd_with_avx512_bf16(monkeypatch, tmp_path, amx, avx512_bf16, vendor, faster):
    assert bf16_is_faster(cpu(monkeypatch, tmp_path, amx=amx, avx512_bf16=avx512_bf16, vendor=vendor)) is faster


def test_a_processor_that_is_not_described_computes_in_fp32(monkeypatch, tmp_path):
    cpu(monkeypatch, tmp_path, amx=False, avx512_bf16=True, vendor="AuthenticAMD")
    assert not bf16_is_faster(tmp_path / "absent")


def test_precision_is_as_told():
    assert [use_bf16(precision) for precision in ("fp32", "bf16", "auto")] == [False, True, bf16_is_faster()]
