import pytest

from tai_engine import doctor
from tai_engine.encoders import devices
from tai_kernels.encoding import int16_layers


@pytest.mark.parametrize(
    ("reason", "state", "detail"),
    [
        (None, "ok", "ResNets encode pictures in int16 on this CPU"),
        ("no C++ compiler was found (c++)", "note", "in fp32, which is slower here: no C++ compiler was found (c++)"),
    ],
)
def test_how_a_cpu_with_avx2_alone_encodes(monkeypatch, reason, state, detail):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _device: False)
    monkeypatch.setattr(devices, "has_fast_int16", lambda _device: True)
    monkeypatch.setattr(int16_layers, "why_not", lambda: reason)
    (finding,) = doctor._int16()
    assert (finding.subject, finding.state) == ("int16 layers", state)
    assert detail in finding.detail


@pytest.mark.parametrize(("bf16", "int16"), [(True, True), (False, False)])
def test_other_cpus_have_nothing_to_say_of_it(monkeypatch, bf16, int16):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _device: bf16)
    monkeypatch.setattr(devices, "has_fast_int16", lambda _device: int16)
    assert list(doctor._int16()) == []
