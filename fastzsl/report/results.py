"""Results as a table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.protocol.metrics import Results
from fastzsl.protocol.scoring import Localisation


def print_results(
    results: Results, where: Localisation | None, data: ZeroShotDataset, console: Console
) -> None:
    """T1; U, S, H with gamma and without; AUSUC; and where the attention looks."""
    title = f"{data.name}: {len(data.seen)} seen and {len(data.unseen)} unseen classes"
    table = Table(title=title, title_justify="left")
    table.add_column("setting")
    table.add_column("figure", justify="right")
    table.add_column("what it is", style="dim")
    chosen = "chosen on held-out seen classes"
    rows = [
        ("conventional", f"T1 {results.T1:.3f}", "unseen pictures among unseen classes (equation 8)"),
        (
            "generalised",
            f"U {results.U:.3f}",
            f"unseen pictures among all classes, gamma {results.gamma:.4f}",
        ),
        ("", f"S {results.S:.3f}", f"seen pictures among all classes; gamma {chosen}"),
        ("", f"H {results.H:.3f}", "their harmonic mean (equation 9)"),
        ("without gamma", f"U {results.U0:.3f}", ""),
        ("", f"S {results.S0:.3f}", ""),
        ("", f"H {results.H0:.3f}", ""),
        ("every gamma", f"AUSUC {results.AUSUC:.3f}", "area under S over U"),
    ]
    if where is not None:
        rows.append(
            (
                "attention",
                f"{100 * where.hits:.0f}%",
                f"of its maxima fall on the object in unseen pictures (chance {100 * where.chance:.0f}%)",
            )
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)
