import shlex
from pathlib import Path

import pytest

from tai_benchmarks.cluster_cost import Fleet, Prices, Rate, estimate, files_per_group, main, stores, table

PRICES = Prices(gpu_hour=3.0, gb_month=0.02, thousand_writes=0.005)
SPECS = stores(dim=1024, rows=49, coarse_clip=True)


def cluster(**changes):
    values = {
        "encode": Rate(1000, "one GPU"),
        "decode": Rate(200),
        "read": Rate(1e9),
        "score": Rate(1e6),
        "cores_per_gpu": 10,
        "gpus": 4,
    }
    return Fleet(**(values | changes))


def test_a_rate_is_measured_if_it_says_where():
    assert Rate.parse("2,000") == Rate(2000.0, "")
    assert Rate.parse("2,000").origin == "assumed"
    assert Rate.parse("473@one core, draft") == Rate(473.0, "one core, draft")
    assert Rate.parse("473@one core, draft").origin == "measured (one core, draft)"
    for wrong in ("0", "-3", "fast", "5@", "@here"):
        with pytest.raises(ValueError):
            Rate.parse(wrong)


def test_the_slower_stage_sets_the_pace():
    assert (cluster().cache_rate, cluster().cache_limit) == (1000, "encode")
    assert (cluster(cores_per_gpu=4).cache_rate, cluster(cores_per_gpu=4).cache_limit) == (800, "decode")
    assert cluster().tag_rate(100_000) == 10_000  # 1 GB/s of 100 KB each
    assert cluster(score=Rate(5000)).tag_rate(100_000) == 5000


def test_files_are_counted_as_they_are_written():
    """16 chunks of coarse, coarse_clip and fine; id, status, count, size, modified_ns, content_hash; the record."""
    assert files_per_group(SPECS["fp16"]) == 16 * 3 + 6 + 1
    assert files_per_group(SPECS["int8"]) == 16 * 4 + 6 + 1  # and the scales
    assert files_per_group(SPECS["coarse only, fp16"]) == 16 * 2 + 6 + 1


def test_a_million_pictures_by_hand():
    one = estimate(10**6, SPECS["fp16"], cluster(), PRICES)
    assert one.cache_gpu_hours == pytest.approx(1e6 / 1000 / 3600)
    assert one.cache_hours == pytest.approx(one.cache_gpu_hours / 4)
    assert one.cache_price == pytest.approx(3 * 1e6 / 1000 / 3600)
    assert one.store_bytes == SPECS["fp16"].estimate_bytes(10**6)
    assert one.store_bytes == pytest.approx(1e6 * 51 * 1024 * 2, rel=0.01)  # 49 rows and two coarse ones
    assert one.store_files == 977 * 55
    assert one.write_price == pytest.approx(977 * 55 * 0.005 / 1000)
    assert one.month_price == pytest.approx(one.store_bytes / 1e9 * 0.02)
    assert one.tag_gpu_hours == pytest.approx(one.store_bytes / 1e9 / 3600)


def test_the_table_says_what_was_assumed():
    lines = table(SPECS, cluster(), PRICES).splitlines()
    assert sum(line.startswith("| 1,000,000 |") for line in lines) == 3
    assert sum(line.startswith("| 1,000,000,000 |") for line in lines) == 3
    assert "- Encode, pictures/s and GPU: 1,000, measured (one GPU)." in lines
    assert "- Decode, pictures/s and core: 200, assumed." in lines
    assert "- A GPU with 10 cores caches 1,000 pictures/s; encode is the limit." in lines
    fp16 = next(line for line in lines if line.startswith("| 1,000,000,000 | fp16"))
    assert fp16.split(" | ")[2:5] == ["278", "69", "833"]


def test_workers_that_are_no_gpus():
    printed = table(SPECS, cluster(worker="machine", encode=Rate(1000, "one machine")), PRICES)
    assert "| hours on 4 machines | machine price |" in printed
    assert "- A machine with 10 cores caches 1,000 pictures/s; encode is the limit." in printed
    assert "GPU" not in printed


def test_the_command_prints_the_table(capsys):
    main(["--encode-rate", "1000@one GPU", "--decode-rate", "200", "--price-per-gpu-hour", "3", "--gpus", "4"])
    printed = capsys.readouterr().out
    assert "| hours on 4 GPUs |" in printed
    assert "Encode, pictures/s and GPU: 1,000, measured (one GPU)." in printed
    for wrong in (["--encode-rate", "x"], ["--gpus", "0"]):
        with pytest.raises(SystemExit):
            main(["--encode-rate", "1", "--decode-rate", "1", "--price-per-gpu-hour", "3", *wrong])
        assert "argument --encode-rate" in (text := capsys.readouterr().err) or "--gpus must be 1 or more" in text


def test_the_page_shows_what_its_commands_print(capsys):
    import tai_engine

    page = (Path(tai_engine.__file__).parent / "CLUSTER.md").read_text(encoding="utf-8")
    commands = page.split("    python -m tai_benchmarks.cluster_cost --encode")[1:]
    assert len(commands) == 2
    for command in commands:
        main(shlex.split("--encode" + command.partition("\n\n")[0].replace("\\\n", "")))
        printed = capsys.readouterr().out
        assert "1,000,000,000" in printed
        assert printed in page
