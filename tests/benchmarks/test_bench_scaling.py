import pytest

from tai_benchmarks.bench_scaling import ScalingConfig, configure, run
from tai_engine.errors import UserError


@pytest.mark.slow
def test_points_of_every_curve():
    config = ScalingConfig(items=(3, 9), classes=(2, 3), patches=(1, 2), sentences=(200, 400), rounds=3)
    rows = list(run(config))
    assert [row.case for row in rows] == [
        "items/3", "items/9", "classes/2", "classes/3", "patches/1", "patches/2", "sentences/200", "sentences/400",
    ]  # fmt: skip
    assert [row.extra["point"] for row in rows] == [3, 9, 2, 3, 1, 2, 200, 400]
    assert {row.unit for row in rows} == {"pictures/s", "sentences/s"}
    assert all(row.value > 0 for row in rows)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first.ratio == 1.0
        assert second.ratio == pytest.approx(second.value / first.value)


def test_a_quick_run_has_the_first_points():
    config = configure(quick=True, cases=("classes",))
    assert config.classes == (20, 80)
    assert config.cases == ("classes",)
    assert configure(quick=False) == ScalingConfig()
    with pytest.raises(UserError, match="Unknown case 'clases'"):
        ScalingConfig(cases=("clases",))
    with pytest.raises(UserError, match="rounds is 2"):
        ScalingConfig(rounds=2)
