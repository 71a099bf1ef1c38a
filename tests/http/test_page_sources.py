"""Sources of the pages: no way to make markup of text, complete strings in both languages, small files."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from broker.http.page_files import FOLDER
from protocol.operations import Scope
from tests.support.programs import needs

SCRIPTS = sorted(FOLDER.rglob("*.js"))
MAX_LINES = 300
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\bFunction\(|setAttribute\(\"style\"|javascript:"
    r"|createContextualFragment|DOMParser|srcdoc\s*="
)
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]")


def lines_with(pattern: re.Pattern[str], path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(FOLDER)
    return [f"{name}:{number}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


def test_no_script_makes_markup_of_text() -> None:
    assert [found for path in SCRIPTS for found in lines_with(FORBIDDEN, path)] == []


def test_scripts_and_styles_are_small_and_hold_no_sentence_of_their_own() -> None:
    for path in (*SCRIPTS, *FOLDER.rglob("*.css"), *FOLDER.rglob("*.html")):
        assert path.read_text(encoding="utf-8").count("\n") <= MAX_LINES, path
    others = [path for path in (*SCRIPTS, *FOLDER.rglob("*.html")) if path.parent.name != "strings"]
    assert [found for path in others for found in lines_with(CJK, path)] == []


def test_colours_are_in_the_tokens_only() -> None:
    colours = re.compile(r"#[0-9a-fA-F]{3,8}\b(?![^{]*\{)|\brgba?\(")
    styles = [path for path in FOLDER.rglob("*.css") if path.name not in ("tokens.css", "base.css")]
    found = [each for path in styles for each in lines_with(colours, path)]
    assert len(found) <= 12, found


def test_the_console_offers_every_scope() -> None:
    text = (FOLDER / "js" / "console" / "keys.js").read_text(encoding="utf-8")
    offered = re.findall(r'"([^"]+)"', text[text.index("const SCOPES") : text.index("];")])
    assert sorted(offered) == sorted(scope.value for scope in Scope)


def node(script: str) -> str:
    done = subprocess.run(
        [needs("node"), "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, cwd=FOLDER
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, dict[str, str]]]:
    """The tables of strings by file and language."""
    names = [path.name for path in sorted((FOLDER / "strings").glob("*.js"))]
    imports = "".join(f'import * as m{n} from "./strings/{name}";' for n, name in enumerate(names))
    pairs = ",".join(f"[{json.dumps(name)}, m{n}]" for n, name in enumerate(names))
    found = json.loads(node(f"{imports} console.log(JSON.stringify([{pairs}].map(([n, m]) => [n, {{...m}}])))"))
    return {f"{name} {export}": table for name, exports in found for export, table in exports.items()}


@pytest.mark.integration
def test_both_languages_have_the_same_keys_and_placeholders(tables: dict[str, dict[str, dict[str, str]]]) -> None:
    assert tables
    for name, table in tables.items():
        if set(table) != {"zh", "en"}:
            continue  # a file of one language
        assert table["zh"].keys() == table["en"].keys(), name
        for key, text in table["zh"].items():
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", table["en"][key])), (name, key)


@pytest.mark.integration
def test_every_sentence_that_is_asked_for_is_there(tables: dict[str, dict[str, dict[str, str]]]) -> None:
    known = {key for table in tables.values() for key in (table.get("zh") or table)}
    for path in (*SCRIPTS, *FOLDER.rglob("*.html")):
        text = re.sub(r"^\s*//.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        asked = {*re.findall(r'\bt\("([^"$]+)"', text), *re.findall(r'data-t(?:-label|-hint)?="([^"]+)"', text)}
        assert asked <= known, (path.name, asked - known)


@pytest.mark.integration
def test_an_address_is_https_of_a_known_host_or_nothing() -> None:
    cases = [
        ("https://img.example.com/a.png", True), ("https://a.img.example.com/", True),
        ("http://img.example.com/", False),
        ("https://evilimg.example.com/", False), ("https://img.example.com.evil.example/", False),
        ("https://user@img.example.com/", False), ("javascript:alert(1)", False), ("data:text/html,x", False),
        ("//img.example.com/a", False), ("", False), ("https://img.example.com:444/", False),
    ]  # fmt: skip
    script = """
      globalThis.document = undefined;
      const { judgeUrl } = await import("./js/base/url.js");
      console.log(JSON.stringify(CASES.map(([text]) => judgeUrl(text, ["img.example.com"]) !== null)));
    """.replace("CASES", json.dumps(cases))
    assert json.loads(node(script)) == [is_good for _, is_good in cases]


@pytest.mark.integration
def test_an_element_takes_no_address_that_leads_elsewhere_and_no_code() -> None:
    refused = [
        ["href", "//evil.example"], ["href", "/\\evil.example"], ["href", "/\t/evil.example"], ["src", "javascript:x"],
        ["href", " /room/x"], ["style", "x"], ["srcdoc", "x"], ["onclick", "x"],
    ]  # fmt: skip
    taken = [["href", "#rooms/%2F"], ["href", "/room/x"], ["src", "/pages/0/art/a.svg"], ["title", "//x"]]
    script = """
      globalThis.document = { createElement: () => ({ setAttribute() {}, append() {} }) };
      const { el } = await import("./js/base/dom.js");
      const isTaken = ([name, value]) => { try { el("a", { [name]: value }); return true; } catch { return false; } };
      console.log(JSON.stringify(CASES.map(isTaken)));
    """.replace("CASES", json.dumps([*refused, *taken]))
    assert json.loads(node(script)) == [*[False] * len(refused), *[True] * len(taken)]
