"""The distribution roomcast-client: built, installed into a fresh environment, and used against a real broker."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import trio

from tests.support.broker import running_broker

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import trio
from roomcast_client import Backend, ApiError, open_client

viewers, control = sys.argv[1:]

async def main():
    backend = Backend(control)
    async with open_client(viewers, token="dev:ann") as ann:
        room = await ann.join("live-1")
        await trio.to_thread.run_sync(lambda: backend.messages.publish(room="live-1", type=4, payload=["hello"]))
        async for event in room:
            if getattr(event, "payload", None) is not None:
                print(event.payload)
                break
    try:
        backend.rooms.get(room="elsewhere")
    except ApiError as error:
        print(error.code)
    backend.close()

trio.run(main)
tops = {name.partition(".")[0] for name in sys.modules}
print(sorted(tops & {"broker", "bench", "protocol", "roomcast_client"}))
for name in ("broker", "bench", "protocol"):
    try:
        __import__(name)
    except ImportError:
        continue
    print("there is a package", name)
"""


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT / "protocol"
    )
    (found,) = folder.glob("roomcast_client-*.whl")
    return found


def test_it_has_the_files_of_the_package_under_one_name_and_the_version_of_the_broker(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"roomcast_client", wheel.name.split("-py3")[0] + ".dist-info"}
    files = {f"roomcast_client/{path.relative_to(ROOT / 'protocol')}" for path in (ROOT / "protocol").rglob("*.py")}
    assert set(names) >= {name for name in files if "/vectors/" not in name} | {"roomcast_client/py.typed"}
    client, broker = (
        tomllib.loads((ROOT / each).read_text()) for each in ("protocol/pyproject.toml", "pyproject.toml")
    )
    assert client["project"]["version"] == broker["project"]["version"]
    assert set(client["project"]["dependencies"]) <= set(broker["project"]["dependencies"])


async def test_an_application_has_the_clients_and_no_other_package_of_ours(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    zipfile.ZipFile(wheel).extractall(site)
    # Its dependencies, but not the packages of this repository: a .pth file behind a .pth file is not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    async with running_broker(api={"listen": "127.0.0.1:0"}, ledger={"ephemeral": True}) as broker:
        host, port = broker.addresses[0]
        command = (python, tmp_path / "program.py", f"roomcast://{host}:{port}", broker.api_urls[0])
        out = await trio.to_thread.run_sync(lambda: run(*command))
    assert out.splitlines() == ["AnnouncementPayload(text='hello')", "UNKNOWN_ROOM", "['roomcast_client']"]
