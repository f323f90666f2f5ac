"""`python -m fastzsl.info`: what this installation has, what it lacks, and what follows from that."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from rich.table import Table

from fastzsl.command.console import open_console
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.report.environment import environment


@dataclass(frozen=True)
class Settings:
    """What to show.

    Args:
        backbones: list every backbone name instead.
        json: print one JSON object.
    """

    backbones: bool = False
    json: bool = False


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    settings = parse(Settings, arguments, "python -m fastzsl.info", "What this installation has and lacks.")
    if settings.backbones:
        from fastzsl.features.backbones import available_backbones

        print("\n".join(available_backbones()))
        return
    found = environment()
    if settings.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    console = open_console()
    for title, rows in found.items():
        table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name, value)
        console.print(table)
    console.print("GPU speed, and bf16 precision on a GPU, have not been measured yet.")


if __name__ == "__main__":
    main()
