"""``tai doctor``: what works on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from tai_engine.cli.options import DEFAULT_MODEL, DEFAULT_PRETRAINED, AsJson, Model, Pretrained
from tai_engine.cli.output import print_json, print_table, results


def doctor(model: Model = DEFAULT_MODEL, pretrained: Pretrained = DEFAULT_PRETRAINED, as_json: AsJson = False) -> None:
    """Versions, devices, kernels, free disk and weights; what is missing, and the command that mends it."""
    from tai_engine.doctor import examine

    findings = list(examine(model, pretrained, Path.cwd()))
    missing = [finding for finding in findings if finding.state == "missing"]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table("", ("", "what", "found"), [(f.state, f.subject, f.detail) for f in findings])
        for finding in findings:
            if finding.remedy:
                results.print(f"{finding.subject}: {finding.remedy}")
        if not missing:
            results.print("Nothing is missing.")
    raise typer.Exit(2 if missing else 0)
