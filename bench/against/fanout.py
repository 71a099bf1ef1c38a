"""Fan-out of roomcast without policies compared with other servers on this machine.

They run one after the other with as many viewers, the same messages on the same schedule and the same receiver. Each
message is a write of its own (joining in ticks is a policy and is off). The figure is the server's CPU for one
delivery, also as a ratio to the raw loop on the same sockets.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.against.publisher import CENTRIFUGO_KEY
from bench.load.links import ViewerSpec
from bench.measure import now_us, summarise
from bench.process import BenchFailure, Child, ProcessGroup
from bench.run import RunOptions, run_scenario
from bench.scenario import Scenario, Stream

__all__ = ["DIALECTS", "run_against"]

DIALECTS = {
    "websockets": ("websocket", "websocket"),
    "redis": ("redis", "redis"),
    "nchan": ("nchan", "websocket"),
    "nats": ("nats", "nats"),
    "centrifugo": ("centrifugo", "centrifugo"),
}
"""What each comparator speaks with the publisher, and with viewers."""
_PROGRAMS = {"redis": "redis-server", "nats": "nats-server", "centrifugo": "centrifugo"}

DELIVERIES_PER_S = 12_000
SECONDS = 8.0
MAX_VIEWERS = 8000
LIFETIME_S = 180.0
NCHAN_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
)

Row = dict[str, Any]
"""One line of the table. Any: plain JSON."""
StatusCallback = Callable[[str], None]


def run_against(names: list[str], scenario: Scenario, options: RunOptions, report_status: StatusCallback) -> list[Row]:
    """Return a row for roomcast over TCP and WebSocket, and one for each of ``names``; absent ones name the reason."""
    viewers = min(scenario.viewers, MAX_VIEWERS)
    rate = max(1.0, DELIVERIES_PER_S / viewers)
    rows: list[Row] = []
    floors: dict[str, float] = {}
    for transport in ("tcp", "websocket"):
        report_status(f"roomcast over {transport}")
        row, floors[transport] = _roomcast(viewers, rate, transport, options)
        rows.append(row)
    for name in names:
        report_status(name)
        missing = _missing(name)
        if missing:
            rows.append({"name": name, "absent": missing})
            continue
        try:
            floor = floors["tcp" if name in ("redis", "nats") else "websocket"]
            rows.append(_other_server(name, viewers, rate, floor))
        except (BenchFailure, OSError) as error:
            rows.append({"name": name, "absent": f"installed, but it could not be measured: {error}"})
    return rows


def _missing(name: str) -> str:
    """Return why a comparator cannot run, "" if it can."""
    if name == "websockets":
        return "" if importlib.util.find_spec("websockets") else "pip install websockets"
    if name in _PROGRAMS:
        return "" if shutil.which(_PROGRAMS[name]) else f"no {_PROGRAMS[name]} on the PATH"
    if not shutil.which("nginx"):
        return "no nginx on the PATH"
    return "" if any(path.exists() for path in NCHAN_MODULES) else "this nginx has no ngx_nchan_module.so"


def _roomcast(viewers: int, rate: float, transport: str, options: RunOptions) -> tuple[Row, float]:
    scenario = Scenario(
        name=f"against-{transport}",
        title="roomcast without policies",
        purpose="",
        viewers=viewers,
        seconds=SECONDS,
        transport="tcp" if transport == "tcp" else "websocket",
        features="plain",
        users=4,
        chat_role="moderator",
        streams=(Stream(kind="danmaku", rate=rate),),
        floor_sweeps=3,
        broker={"room": {"policy": "off"}},
    )
    result = run_scenario(scenario, options, lambda text: None)
    headline, floor = result["headline"], result["floor"]["python_cpu_us"]
    violations = result["invariants"]["violations"]
    row = {
        "name": f"roomcast, {transport}, policies off",
        "viewers": viewers,
        "messages_per_s": headline["posts_per_s"],
        "p50_ms": headline["chat_p50_ms"],
        "p99_ms": headline["chat_p99_ms"],
        "cpu_us": headline["cpu_delivery_us"],
        "ratio": headline["cpu_delivery_us"] / floor,
        "note": violations[0] if violations else f"raw loop {floor:.1f} us",
    }
    return row, floor


def _other_server(name: str, viewers: int, rate: float, floor_us: float) -> Row:
    publishes, receives = DIALECTS[name]
    with ProcessGroup() as processes:
        server, port = _start(name, processes)
        origin_us = now_us()
        receiver = processes.start("viewers-0", "bench.against.receiver", receives)
        spec = ViewerSpec(
            host="127.0.0.1", port=port, links=viewers, rooms=["bench-0"], auth="guest", websocket_share=1.0,
            connect_per_s=3000, origin_us=origin_us, lifetime_s=LIFETIME_S,
        )  # fmt: skip
        receiver.send_spec(msgspec.to_builtins(spec))
        ready = receiver.wait("ready", 90)
        if ready["states"].get("ready", 0) < viewers:
            raise BenchFailure(f"only {ready['states']} joined: {ready['errors']}")
        receiver.send_command("begin")
        start_us = now_us() + 1_000_000
        publisher = processes.start(
            "publisher", "bench.against.publisher", publishes, "127.0.0.1", str(port), str(origin_us), str(start_us),
            str(SECONDS), str(rate),
        )  # fmt: skip
        time.sleep(max(0.0, (start_us - now_us()) / 1e6))
        cpu = _cpu_s_of(processes, server)
        done = publisher.wait("done", SECONDS + 30)
        time.sleep(0.5)
        spent = _cpu_s_of(processes, server) - cpu
        receiver.send_command("report")
        report = receiver.wait("report", 60)
    copies = sum(report["copies"].values())
    if not copies:
        raise BenchFailure("nothing arrived")
    latencies = summarise([report["latencies"]["chat"]])
    cpu_us = spent / copies * 1e6
    notes = [] if not report["violation_count"] else [f"{report['violated']} viewers missed messages"]
    if done["lateness_p99_ms"] > 50:
        notes.append("the publisher was late")
    return {
        "name": name,
        "viewers": viewers,
        "messages_per_s": done["sent"] / SECONDS,
        "p50_ms": latencies.percentile_us(50) / 1000,
        "p99_ms": latencies.percentile_us(99) / 1000,
        "cpu_us": cpu_us,
        "ratio": cpu_us / floor_us,
        "note": "; ".join(notes),
    }


def _cpu_s_of(processes: ProcessGroup, server: Child) -> float:
    """Return the CPU seconds of a server and its workers."""
    return processes.cpu_s(server) + sum(
        sum(child.cpu_times()[:2]) for child in server.usage.children(recursive=True)
    )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _start(name: str, processes: ProcessGroup) -> tuple[Child, int]:
    if name == "websockets":
        server = processes.start(name, "bench.against.websockets_server", str(LIFETIME_S))
        return server, server.wait("serving", 20)["port"]
    port = _free_port()
    if name == "redis":
        program = [
            "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--protected-mode", "no", "--daemonize", "no",
            "--save", "", "--appendonly", "no", "--maxclients", "19000",
            "--client-output-buffer-limit", "pubsub 0 0 0",
        ]  # fmt: skip
    elif name == "nats":
        program = ["nats-server", "--addr", "127.0.0.1", "--port", str(port)]
    elif name == "centrifugo":
        settings = processes.folder / "centrifugo.json"
        settings.write_text(json.dumps(_CENTRIFUGO))
        program = ["centrifugo", "--config", str(settings), "--address", "127.0.0.1", "--port", str(port)]
    else:
        config = processes.folder / "nginx.conf"
        module = next(path for path in NCHAN_MODULES if path.exists())
        config.write_text(_NGINX.format(module=module, folder=processes.folder, port=port))
        program = ["nginx", "-p", str(processes.folder), "-c", str(config)]
    server = processes.start_program(name, program)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        if server.process.poll() is not None:
            raise BenchFailure(f"it ended at its start: {server.final_output()}")
        time.sleep(0.1)
    raise BenchFailure("it does not listen")


_CENTRIFUGO = {
    # Up to version 5, and from version 6 on: each ignores what it does not know.
    "api_key": CENTRIFUGO_KEY,
    "allow_anonymous_connect_without_token": True,
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "client": {"allow_anonymous_connect_without_token": True},
    "channel": {"without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}},
    "http_api": {"key": CENTRIFUGO_KEY},
    "http_server": {},
}

_NGINX = """
load_module {module};
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_rlimit_nofile 19000;
events {{ worker_connections 18000; use epoll; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  nchan_max_reserved_memory 256m;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/pub/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 64; }}
    location ~ ^/sub/(\\w+)$ {{ nchan_subscriber websocket; nchan_channel_id $1;
      nchan_subscriber_first_message newest; }}
  }}
}}
"""
