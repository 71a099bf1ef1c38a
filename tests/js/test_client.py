"""The JavaScript client in Node: its own tests, its generated tables, its package, and a real broker over a restart."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from tests.support.processes import serving
from tests.support.programs import needs

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "protocol" / "clients" / "js"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("javascript", ROOT / ".ci" / "javascript.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["javascript"] = module
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_wire() -> None:
    for name, text in _generator().modules().items():
        assert (CLIENT / name).read_text(encoding="utf-8") == text, f"{name}: run python .ci/javascript.py"


def test_files_are_short_and_import_nothing_from_elsewhere() -> None:
    generated = set(_generator().modules())
    for path in CLIENT.rglob("*.js"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 350 or path.relative_to(CLIENT).as_posix() in generated, path.name
        sources = [line.split(" from ")[-1] for line in lines if line.startswith(("import ", "} from", "export {"))]
        assert all(source.startswith('"./') for source in sources if '"' in source), path.name


@pytest.mark.parametrize("name", ["wire.test.mjs", "client.test.mjs"])
def test_in_node(name: str) -> None:
    run = subprocess.run(
        [needs("node"), "--expose-gc", "--test", str(ROOT / "tests" / "js" / name)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
    assert "# skipped 0" in run.stdout


def test_the_package_holds_what_it_needs(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    run = subprocess.run([npm, "pack", "--dry-run", "--json"], cwd=CLIENT, capture_output=True, text=True, check=True)
    files = {each["path"] for each in json.loads(run.stdout)[0]["files"]}
    assert files == {path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*") if path.is_file()}


def _npm(package: str) -> Path:
    """Return the folder of a package of npm in NODE_PATH, or skip: npm's packages are oracles here and nothing else."""
    for folder in os.environ.get("NODE_PATH", "").split(os.pathsep):
        if folder and (Path(folder) / package).is_dir():
            return Path(folder) / package
    pytest.skip(f"{package} is not in NODE_PATH")


def test_msgpack_is_that_of_npm() -> None:
    oracle = _npm("@msgpack/msgpack") / "dist.esm" / "index.mjs"
    run = subprocess.run(
        [needs("node"), str(ROOT / "tests" / "js" / "oracle.mjs"), oracle.as_uri()], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "20,000 values are the same" in run.stdout


def test_the_types_are_what_typescript_takes() -> None:
    compiler = _npm("typescript") / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2023,dom"]
    run = subprocess.run(
        [needs("node"), str(compiler), *options, str(ROOT / "tests" / "js" / "types.mts")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout


def test_a_strict_project_in_typescript_uses_the_package(tmp_path: Path) -> None:
    """As a user does: the packed archive in node_modules, the name of the package in an import."""
    compiler = _npm("typescript") / "bin" / "tsc"
    npm = shutil.which("npm")
    assert npm is not None
    copy = tmp_path / "client"
    shutil.copytree(CLIENT, copy)
    subprocess.run([npm, "pack", "--pack-destination", tmp_path], cwd=copy, capture_output=True, check=True)
    [archive] = tmp_path.glob("*.tgz")
    installed = tmp_path / "node_modules" / "roomcast-client"
    shutil.unpack_archive(archive, tmp_path / "unpacked", "gztar", filter="data")
    installed.parent.mkdir()
    (tmp_path / "unpacked" / "package").rename(installed)
    source = (ROOT / "tests" / "js" / "types.mts").read_text(encoding="utf-8")
    (tmp_path / "app.mts").write_text(source.replace("../../protocol/clients/js/roomcast.js", "roomcast-client"))
    for module in (["--module", "nodenext"], ["--module", "esnext", "--moduleResolution", "bundler"]):
        options = ["--noEmit", "--strict", *module, "--target", "es2022", "--lib", "es2023,dom"]
        run = subprocess.run(
            [needs("node"), str(compiler), *options, "app.mts"], cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stdout
    use = 'import { connect } from "roomcast-client"; console.log(typeof connect);'
    run = subprocess.run(
        [needs("node"), "--input-type=module", "--eval", use], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.stdout == "function\n", run.stderr


async def test_the_program_of_the_guide_does_what_it_says(tmp_path: Path) -> None:
    guide = (ROOT / "broker" / "guides" / "javascript.md").read_text(encoding="utf-8")
    program = next(part for part in guide.split("```js\n") if part.startswith("// bot.mjs")).partition("```")[0]
    async with serving() as broker:
        program = program.replace("127.0.0.1:7400", f"127.0.0.1:{broker.port}")
        (tmp_path / "bot.mjs").write_text(program.replace("./protocol/clients/js", CLIENT.as_uri()), encoding="utf-8")
        with trio.fail_after(60):
            run = await trio.run_process(
                [needs("node"), str(tmp_path / "bot.mjs")], capture_stdout=True, capture_stderr=True, check=False
            )
    assert run.returncode == 0, run.stderr.decode()
    lines = run.stdout.decode().splitlines()
    # An answer may come before the event or after it.
    assert sorted(line.strip() for line in lines if not line.startswith("waiting")) == sorted([
        "handshaking", "open", "accepted", '1 announcement {"text":"今天八折"}', "accepted 1",
        "bad_field limit", "closed closed by the application",
    ])  # fmt: skip


@pytest.mark.slow
async def test_two_clients_meet_a_real_broker_and_its_restart(tmp_path: Path) -> None:
    settings = "--data-dir", str(tmp_path / "data")
    async with serving(*settings) as broker:
        port = broker.port
        process = await trio.lowlevel.open_process(
            [needs("node"), str(ROOT / "tests" / "js" / "broker.mjs"), f"roomcast://127.0.0.1:{port}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        steps = _Steps(process.stdout)
        try:
            with trio.fail_after(60):
                await _before(steps)
            broker.process.kill()
            await broker.wait()
            async with serving(*settings, "--port", str(port)):
                await process.stdin.send_all(b"go\n")
                with trio.fail_after(60):
                    await _after(steps)
                    assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()


class _Steps:
    """What the script prints, by step."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._data = b""

    async def next(self, step: str) -> dict[str, Any]:
        while b"\n" not in self._data:
            received = await self._stream.receive_some()
            assert received, f"ended before {step}"
            self._data += received
        line, _, self._data = self._data.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        assert found["step"] == step, found
        return found


async def _before(steps: _Steps) -> None:
    joined = await steps.next("joined")
    assert joined == {"step": "joined", "role": "viewer", "staff": "host", "phase": "live", "offset": 0}
    assert (await steps.next("posted"))["outcomes"] == ["accepted", "accepted"]
    refused = (await steps.next("refused"))["result"]
    assert (refused["outcome"], refused["error"]) == ("rejected", "not_allowed")
    assert (await steps.next("empty"))["result"]["error"] == "bad_field"
    assert (await steps.next("announced"))["result"]["offset"] == 1
    gift = await steps.next("gift")
    assert gift["offset"] == gift["repeated"] == 2
    assert gift["isKnown"]
    assert (await steps.next("created"))["poll"] == "open"
    assert (await steps.next("call refused"))["error"] == "not_allowed"
    assert (await steps.next("sent"))["direct"] == "sent"
    counted = await steps.next("counted")
    assert counted["likes"] == {"waiting": 0, "counted": 5, "refused": 0, "unknown": 0}
    assert sorted(counted["ticks"]) == ["welcome", "主播好美"]
    assert [each[1:] for each in counted["directs"]] == [["announcement", {"text": "coupon"}]]
    await steps.next("restart")


async def _after(steps: _Steps) -> None:
    restarted = await steps.next("restarted")
    assert restarted["recovered"] == [True, True, True]
    assert restarted["later"] == "accepted"
    assert restarted["gaps"] == []
    assert restarted["offsets"] == list(range(1, len(restarted["offsets"]) + 1))
    assert len(restarted["directs"]) == 1
    assert (await steps.next("left"))["membership"] == "ended"
    await steps.next("done")
