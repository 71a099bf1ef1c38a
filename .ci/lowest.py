#!/usr/bin/env python3
"""Print the lowest version that pyproject.toml allows of every direct dependency, as constraints for pip.

One `name==version` a line: of the dependencies and of every extra. What these depend on in turn is left to pip.
"""

import re
import sys
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(\[[^]]*\])?([^;]*)")


def lowest(requirement: str) -> str:
    """Return `name==lower bound` of one requirement. Exits with a message where it has no `>=`, or more than one."""
    parts = REQUIREMENT.match(requirement)
    bounds = re.findall(r">=\s*([^\s,]+)", parts[3]) if parts else []
    if parts is None or len(bounds) != 1:
        sys.exit(f"{requirement!r} has no lower bound, or more than one")
    return f"{parts[1]}=={bounds[0]}"


def constraints(pyproject: Path) -> list[str]:
    """Return the constraints of the project that the file describes, in its order and without its own extras."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in project.get("optional-dependencies", {}).values():
        requirements += extra
    own = re.compile(re.escape(project["name"]) + r"\[")
    return [lowest(requirement) for requirement in requirements if not own.match(requirement)]


if __name__ == "__main__":
    default = Path(__file__).parent.parent / "pyproject.toml"
    print(*constraints(Path(sys.argv[1]) if len(sys.argv) > 1 else default), sep="\n")
