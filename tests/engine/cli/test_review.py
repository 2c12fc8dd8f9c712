"""`tai review` and `tai report` from the shell; the page itself is tested where it lies."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("starlette", reason="needs the extra 'review'")

import torch

from review_samples import write_sample, write_tags
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.review.journal import read_decisions


def refused(outcome, *parts):
    message = " ".join(outcome.stderr.split())
    assert outcome.status == 2
    assert outcome.stdout == ""
    for part in parts:
        assert part in message, message


def start(*arguments):
    code = "import sys; from tai_engine.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "review", *map(str, arguments), "--json", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_serves_until_it_is_interrupted(tmp_path):
    tags, pictures = write_sample(tmp_path)
    server = start(tags, "--images", pictures, "--reviewer", "anna", "--thumbnail-cache", tmp_path / "cache")
    try:
        said = json.loads(server.stdout.readline())
        assert said["pictures"] == 5
        assert said["journal"] == str(tmp_path / "tags.parquet.decisions.jsonl")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"<h1" in opener.open(said["address"]).read()
        base, _, _ = said["address"].partition("/?")
        body = json.dumps({"changes": [{"pictures": [1], "accept": ["dog"]}]}).encode()
        request = urllib.request.Request(
            f"{base}/data/decide", body, {"Content-Type": "application/json", "Origin": base}
        )
        assert json.load(opener.open(request))["revision"] == 1
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{base}/data/facts.json")
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    assert server.returncode == 0, errors
    assert "Traceback" not in errors
    assert read_decisions(tmp_path / "tags.parquet.decisions.jsonl")["a.jpg"].by == "anna"


def test_heatmaps_from_the_store_that_was_tagged(tai, filled_store, picture_folder, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("cat\ndog\n")
    tags = tmp_path / "tags.parquet"
    assert tai("tag", filled_store, "--vocabulary", words, "--out", tags).status == 0
    other = tmp_path / "p.safetensors"
    PromptSet(("cat",), torch.eye(1, 32), torch.eye(1, 32), "space", 100.0).save(other)
    arguments = (tags, "--images", picture_folder, "--store", filled_store)
    refused(tai("review", *arguments, "--prompts", other, "--port", 0), "tagged with other prompts", "p.safetensors")
    server = start(*arguments, "--thumbnail-cache", tmp_path / "cache")
    try:
        address = json.loads(server.stdout.readline())["address"]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        opener.open(address)
        base = address.partition("/?")[0]
        assert json.load(opener.open(f"{base}/data/facts.json"))["heatmaps"] == ["cat", "dog"]
        heat = json.load(opener.open(f"{base}/data/heatmaps/0.json?tag=dog&width=50&height=40"))
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=30)
    side = len(heat["grid"])
    assert side > 1
    assert all(len(row) == side for row in heat["grid"])
    assert heat["box"] == pytest.approx([0.1, 0, 0.9, 1])


def test_it_listens_to_this_machine_alone():
    from tai_engine.review.serving import listen

    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_said(tai, tmp_path):
    tags, pictures = write_sample(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused(tai("review", tags, "--images", pictures, "--port", port), f"The port {port}", "in use", "--port")
    assert not list(tmp_path.glob("*.jsonl"))


def test_mistakes_with_tags_pictures_and_journals(tai, tmp_path):
    tags, pictures = write_sample(tmp_path)
    journal = tmp_path / "tags.parquet.decisions.jsonl"

    def review(*arguments):
        return tai("review", *arguments, "--port", "0")

    refused(review(tmp_path / "none.parquet", "--images", pictures), "none.parquet", "no file of tags")
    refused(review(tags, "--images", tmp_path / "nowhere"), "nowhere")
    other = write_tags(tmp_path / "other.parquet", [("x.jpg", "dog", 1.0)])
    refused(review(other, "--images", pictures), "None of the 1 tagged pictures", "'x.jpg'")
    refused(review(tags, "--images", pictures, "--prompts", tmp_path / "p"), "--prompts", "--store")
    assert not journal.exists()
    header = {"journal": "tai-engine review", "version": 1, "tags_file": "t", "tags_sha256": "0" * 64}
    journal.write_text(json.dumps(header) + "\n")
    refused(review(tags, "--images", pictures), "other tags than those in 'tags.parquet'", "--carry-over")
    journal.write_text(json.dumps(header) + "\n{\n{}\n")
    refused(review(tags, "--images", pictures), "damaged in line 2")
    refused(review(tags, "--images", pictures, "--journal", pictures), "it is a folder")
    (tmp_path / "file").touch()
    refused(
        review(tags, "--images", pictures, "--journal", tmp_path / "file" / "j"), "a file of that name is in the way"
    )


def test_a_missing_extra_is_said(tai, tmp_path, monkeypatch):
    tags, pictures = write_sample(tmp_path)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(tai("review", tags, "--images", pictures), "uvicorn", "pip install 'tai-engine[review]'")


def test_a_report_says_its_size_before_and_needs_no_extra(tai, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    tags, pictures = write_sample(tmp_path)
    outcome = tai("report", tags, "--images", pictures, "--out", tmp_path / "report", "--json")
    assert outcome.status == 0
    (result,) = outcome.json()
    assert (result["pictures"], result["failed_count"]) == (4, 0)
    assert (tmp_path / "report" / "index.html").is_file()
    assert "Of the 4 tagged pictures 1 are not in" in outcome.stderr
    assert "will have 4 pictures and take about" in outcome.stderr
    assert outcome.stderr.index("will have") > outcome.stderr.index("Of the 4")


def test_a_report_with_the_decisions_beside_the_tags(tai, tmp_path):
    tags, pictures = write_sample(tmp_path)
    journal = tmp_path / "tags.parquet.decisions.jsonl"
    header = {"journal": "tai-engine review", "version": 1, "tags_file": "t", "tags_sha256": "0" * 64}
    entry = {"revision": 1, "by": "x", "at": "", "act": "decide", "changes": [{"ids": ["c.jpg"], "none": True}]}
    journal.write_text(f"{json.dumps(header)}\n{json.dumps(entry)}\n")
    (pictures / "a.jpg").write_bytes(b"no picture")
    outcome = tai("report", tags, "--images", pictures, "--out", tmp_path / "report")
    assert outcome.status == 1
    assert "a.jpg: unknown-format" in outcome.stderr
    assert '"none":true' in (tmp_path / "report/data/decisions.js").read_text()
    refused(tai("report", tags, "--images", pictures, "--out", pictures), "is no report")
