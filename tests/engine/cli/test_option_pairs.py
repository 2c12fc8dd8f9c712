"""Options that would go nowhere beside others are refused, not passed over."""

import pytest


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "tune STORE --vocabulary voc20 --out PLACE/p --refresh 3",
            "--refresh says when sentences are mined, but none",
        ),
        (
            "tune STORE --vocabulary voc20 --out PLACE/p --negative-share 0.5",
            "--negative-share says how many sentences",
        ),
        ("tune STORE --vocabulary voc20 --out PLACE/p --find-constants --lr 1", "leave these out, or that"),
        (
            "tag STORE --out PLACE/t.jsonl --prompts PLACE/p --template {}",
            "--template is for the words of --vocabulary",
        ),
        ("tag STORE --out PLACE/t.jsonl --prompts PLACE/p --model RN50", "--model is for the words of --vocabulary"),
        ("tag STORE --out PLACE/t.jsonl --prompts PLACE/p --pretrained x", "--pretrained is for the words"),
        ("tag STORE --out PLACE/t.jsonl --prompts PLACE/p --merge-duplicates", "--merge-duplicates is for the words"),
        ("tag STORE --out PLACE/t.jsonl --vocabulary voc20 --pretrained openai", "--pretrained names the weights of"),
        ("tag STORE --out PLACE/t.jsonl --vocabulary voc20 --devices cpu --device cpu", "--devices names all devices"),
        ("cache images PLACE PLACE/s --coarse-only --dense value", "--coarse-only keeps no patch features"),
        ("cache texts PLACE/t.txt PLACE/s --merge-duplicates", "--merge-duplicates is about the words of --vocabulary"),
        ("cache texts PLACE/t.txt PLACE/s --vocabulary-column a", "--vocabulary-column is about the words"),
        ("explain 0.png --out PLACE/p --images PLACE", "add --store, or leave --images out"),
        ("explain 0.png --out PLACE/p --prompts PLACE/q --vocabulary voc20", "are for zero-shot words"),
        ("explain 0.png --out PLACE/p --prompts PLACE/q --merge-duplicates", "are for zero-shot words"),
        ("explain 0.png --out PLACE/p --store STORE --pretrained x", "--pretrained names the weights of --model"),
        ("annotate PLACE --out PLACE/r --merge-duplicates", "--merge-duplicates is about the words of --vocabulary"),
        ("bench score --no-record --results PLACE", "--no-record records nothing"),
    ],
)
def test_options_that_go_nowhere_beside_others_are_refused(command, message, tai, filled_store, tmp_path):
    (tmp_path / "t.txt").write_text("a dog\n")
    arguments = command.replace("STORE", str(filled_store)).replace("PLACE", str(tmp_path)).split()
    outcome = tai(*arguments)
    assert outcome.status == 2
    assert message in " ".join(outcome.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]
