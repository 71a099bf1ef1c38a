"""The files of ``broker/deploy``: a viewer through real nginx and HAProxy; the rest is checked by its own tools."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
import yaml

from broker.config.schema import load
from broker.server import Broker
from protocol import open_client
from protocol.clients.transports import Address, BytePipe, StreamPipe, run_websocket
from protocol.codes import MessageType
from tests.support.broker import running_broker, sessions_of
from tests.support.processes import free_port, serving
from tests.support.programs import needs
from tests.support.redis_server import redis_server
from tests.support.tokens import GOOD, HS256, sign

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEPLOY = Path(__file__).parents[2] / "broker" / "deploy"
CLIENT = "127.0.0.5"
"""Address of the viewer: another than the proxy's, 127.0.0.1."""
SECRET = "x" * 32


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority, and a certificate of it for localhost: cert.pem, key.pem, and both.pem."""
    found = trustme.CA()
    issued = found.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    return found


def via(port: int, authority: trustme.CA) -> Callable[[trio.Nursery, Address], Any]:
    """A connector through a TLS proxy on ``port``, from `CLIENT`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def connect(nursery: trio.Nursery, address: Address) -> BytePipe:
        async with AsyncExitStack() as opened:
            tcp = await opened.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port, local_address=CLIENT))
            stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
            await stream.do_handshake()
            pipe: BytePipe = (
                await nursery.start(run_websocket, stream, address) if address.is_websocket else StreamPipe(stream)
            )
            opened.pop_all()  # the pipe closes it from now on
            return pipe

    return connect


@asynccontextmanager
async def proxy(command: list[str], port: int) -> AsyncIterator[None]:
    """Run a proxy until the end of the block; its output is shown where it does not serve."""
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        with trio.move_on_after(20):
            while process.poll() is None:
                try:
                    async with await trio.open_tcp_stream("127.0.0.1", port):
                        break
                except OSError:
                    await trio.sleep(0.05)
        if process.poll() is not None:
            assert process.stdout is not None
            pytest.fail((await process.stdout.receive_some()).decode())
        yield
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def broker_behind(**listen: Any) -> AsyncIterator[Broker]:
    auth = {"secret": SECRET, "guest_access": ["*"]}
    settings = {"trusted_proxies": ["127.0.0.1/32"], **listen}
    async with running_broker(auth=auth, listen=settings, link={"allowed_origins": []}) as broker:
        broker.hub.open("live-1")
        yield broker


async def see_the_room(broker: Broker, url: str, connect: Callable[[trio.Nursery, Address], Any]) -> None:
    """A viewer through the proxy gets what the platform publishes, and counts for its own address."""
    async with open_client(url, connect=connect) as viewer:
        room = await viewer.join("live-1")
        assert [each.address for each in sessions_of(broker)] == [CLIENT]
        await broker.call("messages.publish", room="live-1", type=4, payload=["欢迎"])
        with trio.fail_after(20):
            async for event in room:
                if getattr(event, "payload", None) == ("欢迎",):
                    break


async def watch_the_room(broker: Broker, connect: Callable[[trio.Nursery, Address], Any]) -> None:
    async with trio.open_nursery() as nursery:
        pipe = await connect(nursery, Address.parse("roomcast://localhost"))
        await pipe.send(b"GET /watch/live-1 HTTP/1.1\r\nHost: live.example.com\r\n\r\n")
        data = b""
        with trio.fail_after(20):
            while b'"op":"JOIN"' not in data:
                data += await pipe.receive()
            assert data.startswith(b"HTTP/1.1 200")
            assert [each.address for each in sessions_of(broker)] == [CLIENT]
            await broker.call("messages.publish", room="live-1", type=4, payload=["再见"])
            while "再见".encode() not in data:
                data += await pipe.receive()
        await pipe.aclose()


async def test_viewers_through_nginx(tmp_path: Path, authority: trustme.CA) -> None:
    nginx, port = needs("nginx"), free_port()
    async with broker_behind() as broker:
        text = (DEPLOY / "nginx.conf").read_text()
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("server 127.0.0.1:7400", f"server 127.0.0.1:{broker.addresses[0][1]}"),
            ("/etc/ssl/live.example.com.pem", str(tmp_path / "cert.pem")),
            ("/etc/ssl/live.example.com.key", str(tmp_path / "key.pem")),
        ):
            assert old in text
            text = text.replace(old, new)
        paths = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1; events {{}}\n"
            f"http {{ access_log off; {paths}\n{text} }}"
        )
        async with proxy([nginx, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], port):
            await see_the_room(broker, "ws://localhost/", via(port, authority))
            await watch_the_room(broker, via(port, authority))


async def test_viewers_through_haproxy(tmp_path: Path, authority: trustme.CA) -> None:
    haproxy, port = needs("haproxy"), free_port()
    async with broker_behind(proxy_protocol=True) as broker:
        text = (DEPLOY / "haproxy.cfg").read_text()
        for old, new in (
            ("bind :443", f"bind 127.0.0.1:{port}"),
            ("server broker 127.0.0.1:7400", f"server broker 127.0.0.1:{broker.addresses[0][1]}"),
            ("/etc/haproxy/live.example.com.pem", str(tmp_path / "both.pem")),
            ("maxconn 100000", "maxconn 500"),  # the descriptors of this machine
        ):
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "haproxy.cfg").write_text(text)
        async with proxy([haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")], port):
            for url in ("roomcast://localhost", "ws://localhost/"):
                await see_the_room(broker, url, via(port, authority))
            await watch_the_room(broker, via(port, authority))


def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    unit = tmp_path / "roomcast.service"
    text = (DEPLOY / "roomcast.service").read_text()
    assert "ExecStart=/opt/roomcast/bin/roomcast serve" in text
    unit.write_text(text.replace("/opt/roomcast/bin/roomcast", sys.executable))
    verified = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert str(unit.name) not in verified.stderr, verified.stderr
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=15", unit], capture_output=True, text=True, check=False
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_the_sidecar_is_restricted_and_its_configuration_is_valid(tmp_path: Path) -> None:
    config_map, stateful_set, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = stateful_set["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (sidecar,) = [each for each in pod["containers"] if each["name"] == "roomcast"]
    for each in (sidecar, *pod["initContainers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
    volumes = {
        each["name"]
        for each in (*pod["volumes"], *[c["metadata"] for c in stateful_set["spec"]["volumeClaimTemplates"]])
    }
    for each in (*pod["containers"], *pod["initContainers"]):
        assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
    assert service["spec"]["selector"] == stateful_set["spec"]["template"]["metadata"]["labels"]
    config = tmp_path / "roomcast.toml"
    config.write_text(config_map["data"]["roomcast.toml"])
    loaded = load(config, {"ROOMCAST_AUTH__SECRET": SECRET}, {})
    assert loaded.listen.port == sidecar["ports"][0]["containerPort"] == 7400
    assert pod["terminationGracePeriodSeconds"] > loaded.link.drain_limit_s


def test_the_configuration_of_a_machine_is_valid(tmp_path: Path) -> None:
    loaded = load(DEPLOY / "roomcast.toml", {"ROOMCAST_AUTH__SECRET": SECRET}, {})
    assert loaded.ledger.data_dir == "/var/lib/roomcast"
    unit = (DEPLOY / "roomcast.service").read_text()
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > loaded.link.drain_limit_s
    for proxy_file in ("nginx.conf", "haproxy.cfg"):
        (longest,) = set(
            re.findall(r"(?:proxy_read_timeout|timeout (?:client|server)) +(\d+)s", (DEPLOY / proxy_file).read_text())
        )
        assert int(longest) > loaded.link.heartbeat_cut_s


async def test_the_image_is_not_root_and_its_health_check_works() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    lines = text.splitlines()
    assert lines.index("USER 10001:10001") < lines.index('ENTRYPOINT ["roomcast"]')
    assert not re.search(r"FROM \S+:latest|FROM [^:\s]+$", text, re.MULTILINE)
    for name in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for path in name.split():
            assert (DEPLOY.parents[1] / path).exists(), path
    project = tomllib.loads((DEPLOY.parents[1] / "pyproject.toml").read_text())
    assert f"roomcast:{project['project']['version']}" in text
    python, *arguments = json.loads(re.findall(r"CMD (\[.*urlopen.*\])", text)[0])
    assert python == "python"
    async with running_broker() as broker:
        check = [sys.executable, *(each.replace("7400", str(broker.addresses[0][1])) for each in arguments)]
        assert (await trio.run_process(check, check=False)).returncode == 0
        broker.draining = True
        assert (await trio.run_process(check, check=False, capture_stderr=True)).returncode == 1
        broker.draining = False


def test_the_compose_file_names_brokers_that_may_start_together(tmp_path: Path) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    brokers = {name: each for name, each in compose["services"].items() if name.startswith("broker")}
    names = set()
    values = {"ROOMCAST_AUTH__SECRET": SECRET, "VALKEY_PASSWORD": "p" * 16}
    for broker in brokers.values():
        env = {name: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: values[found[1]], str(value))
               for name, value in broker["environment"].items()}  # fmt: skip
        config = load(None, env)
        assert (config.engine.url, config.engine.password) == ("redis://valkey:6379", "p" * 16)
        names.add(config.engine.node)
    assert names == set(brokers)
    servers = re.findall(r"^\s+server (\w+) (\w+):7400$", (DEPLOY / "haproxy-nodes.cfg").read_text(), re.MULTILINE)
    assert {name for name, _ in servers} == {host for _, host in servers} == set(brokers)
    assert "noeviction" in compose["services"]["valkey"]["command"]
    user = re.search(r"^USER (\d+):", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    builds = [broker["build"] for broker in brokers.values()]
    assert all((DEPLOY / each["context"] / each["dockerfile"]).exists() for each in builds)
    assert f"uid={user[1]}," in brokers["broker1"]["tmpfs"][0]


async def test_viewers_of_two_brokers_behind_haproxy_are_in_one_room(tmp_path: Path) -> None:
    haproxy, port = needs("haproxy"), free_port()
    async with redis_server("--appendonly", "yes") as redis, AsyncExitStack() as stack:
        brokers = {}
        for name in ("broker1", "broker2"):
            settings = {"engine.url": f"unix://{redis.path}", "engine.node": name, "listen.proxy_protocol": "true",
                        "listen.trusted_proxies": "127.0.0.1/32", "auth.guest_access": "*"}  # fmt: skip
            sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
            arguments = [*sets, "--data-dir", str(tmp_path / name)]
            brokers[name] = await stack.enter_async_context(serving(*arguments, ROOMCAST_AUTH__SECRET=SECRET))
        text = (DEPLOY / "haproxy-nodes.cfg").read_text().replace("maxconn 100000", "maxconn 500")
        text = text.replace("bind :7400", f"bind 127.0.0.1:{port}").replace(" resolvers docker", "")
        text = re.sub(r"resolvers docker\n( .*\n)+", "", text).replace("    server broker3 broker3:7400\n", "")
        for name, broker in brokers.items():
            text = text.replace(f"{name}:7400", f"127.0.0.1:{broker.port}")
        (tmp_path / "haproxy.cfg").write_text(text)
        async with proxy([haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")], port):
            host = sign(HS256, GOOD | {"sub": "host", "rooms": [{"pattern": "*", "role": "host"}]}, SECRET)
            async with AsyncExitStack() as clients:
                client = await clients.enter_async_context(open_client(f"roomcast://127.0.0.1:{port}", host))
                stage = await client.join("live-1")
                viewers = [
                    await clients.enter_async_context(open_client(f"roomcast://127.0.0.1:{port}")) for _ in range(4)
                ]  # leastconn: two or more at each
                rooms = [await viewer.join("live-1") for viewer in viewers]
                await stage.post(MessageType.ANNOUNCEMENT, ("大家好",))
                for room in rooms:
                    with trio.fail_after(60):
                        async for event in room:
                            if getattr(event, "payload", None) == ("大家好",):
                                break
