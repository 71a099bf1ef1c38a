"""Write the golden files: ``python -m protocol.vectors``; review the changes before you commit them."""

from __future__ import annotations

from pathlib import Path

from .generate import documents, dump


def main() -> None:
    """Write every file beside this one."""
    folder = Path(__file__).parent
    for name, document in documents().items():
        (folder / name).write_text(dump(document), encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
