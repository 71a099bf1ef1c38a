"""Every command and program of README and the guides does what is said there, run as a user would.

A ``sh`` block is a session in up to four terminals, which its comments number (``# 2: ...``). What runs in the terminal
with the highest number of a block, or in none, must end well; servers and what runs in the other terminals go on beside
it. Benches are too long for a test: their names are checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import free_port
from tests.support.programs import needs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "broker" / "guides"
ADOPT = FOLDER / "adopt.md"
WITH_PROGRAMS = {
    FOLDER / f"{name}.md"
    for name in (
        "audiences", "coupons", "flash-sales", "gifts", "lotteries", "mic", "pk", "polls", "processes", "products",
        "red-packets", "review", "sanctions", "schedules",
    )
}  # fmt: skip
"""Guides whose commands run before their programs (`run_program`), and not once more without them."""
GUIDES = [ROOT / "README.md", *sorted(set(FOLDER.glob("*.md")) - WITH_PROGRAMS - {ADOPT})]
DEADLINE_S = 45
TERMINAL = re.compile(r"#\s+(\d)(?::|$|,| )")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


class Terminal:
    """A folder, ports, and the programs that were started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.api_port = free_port()
        self.tls_port = free_port()
        self.hook_port = free_port()
        self.status_port = free_port()
        self.engine_port = free_port()
        self.running: list[tuple[str, subprocess.Popen[str], Path]] = []
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        for name, arguments in (("roomcast", "-m broker.cli"), ("python", "")):
            (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            (bin_folder / name).chmod(0o755)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("ROOMCAST_")} | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ROOMCAST_LISTEN__PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }

    def localize(self, text: str) -> str:
        """The text with this terminal's ports in place of the default ones."""
        text = re.sub(r"^(roomcast (?:tail|say|direct) )", rf"\1--url roomcast://127.0.0.1:{self.port} ", text)
        api = rf"\1--url http://127.0.0.1:{self.api_port} "
        text = re.sub(r"^(roomcast (?:call|webhooks \w+) )(?!list)", api, text)
        text = re.sub(r"(127\.0\.0\.1:|--port )7500", rf"\g<1>{self.hook_port}", text)
        text = text.replace("127.0.0.1:7401", f"127.0.0.1:{self.api_port}")
        text = text.replace("127.0.0.1:7402", f"127.0.0.1:{self.status_port}").replace("6379", str(self.engine_port))
        text = text.replace("7443", str(self.tls_port))
        return text.replace("127.0.0.1:7400", f"127.0.0.1:{self.port}")

    def start(self, command: str) -> None:
        """Start a program that goes on; a server is waited for."""
        output = self.folder / f"output-{len(self.running)}"
        with output.open("w") as file:
            process = subprocess.Popen(
                self.localize(command), shell=True, executable="/bin/bash", cwd=self.folder, env=self.environment,
                stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip
        self.running.append((command, process, output))
        if command.startswith("roomcast serve"):
            self.wait_for(output, '"event": "serving"')
        elif command.startswith("redis-server"):
            self.wait_for(output, "Ready to accept connections")
        elif command.startswith("roomcast listen-webhooks"):
            self.wait_for(output, "listening on")
        elif command.startswith("roomcast tail"):
            self.wait_for(output, " -- joined ")
        else:
            self.wait_for(self.running[-2][2], "rose")

    def wait_for(self, output: Path, text: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while text not in output.read_text():
            assert time.monotonic() < until, f"{text!r} never came: {output.read_text()}"
            time.sleep(0.05)

    def run(self, command: str) -> str:
        """Run a command to its end, which must be a good one."""
        done = subprocess.run(
            self.localize(command), shell=True, executable="/bin/bash", cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        for _, process, _ in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for _, process, _ in self.running:
            process.wait(DEADLINE_S)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path)
    try:
        yield found
    finally:
        found.close()


def is_checked_elsewhere(command: str) -> bool:
    """Commands that install or measure: the first are what CI itself does, of the others the names are checked here."""
    if "pip install" in command:
        return True
    words = command.split("#")[0].split()
    if "bench" not in words:
        return False
    from bench.micro import BENCHES
    from bench.scenario import SCENARIOS

    names = [word for word in words[words.index("bench") + 2 :] if not word.startswith("--") and "." not in word]
    known = set(BENCHES) if "micro" in words else {path.stem for path in SCENARIOS.glob("*.toml")}
    assert names
    assert set(names) <= known
    return True


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_command_works(guide: Path, terminal: Terminal) -> None:
    run_commands(guide, terminal)


def test_a_guide_without_a_test_of_its_own_runs_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in WITH_PROGRAMS if f'run_program("{path.name}", terminal)' not in tests] == []


def run_commands(guide: Path, terminal: Terminal) -> None:
    if shutil.which("openssl") is None and guide.name in ("adopt.md", "deploy.md", "operate.md", "webhooks.md"):
        pytest.skip("openssl is not installed")
    if guide.name == "processes.md":
        needs("redis")
    for block in blocks(guide, "sh"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        numbers = [int(found[1]) if (found := TERMINAL.search(line)) else None for line in lines]
        last = max((number for number in numbers if number is not None), default=None)
        for line, number in zip(lines, numbers, strict=True):
            if is_checked_elsewhere(line):
                continue
            if line.startswith(("roomcast serve", "roomcast tail", "roomcast listen-webhooks")) or (
                number is not None and number != last
            ):
                terminal.start(line)
            else:
                terminal.run(line)


def test_a_platform_that_follows_the_guide_sees_its_gift_its_webhooks_and_its_rotated_key(terminal: Terminal) -> None:
    """The guide's commands do what it says: they are followed by what they must have led to."""
    run_commands(ADOPT, terminal)
    receiver, _, viewer = (output for _, _, output in terminal.running)
    for text in ("rose", "kicked: spam"):
        terminal.wait_for(viewer, text)
    for event in ("room.opened", "room.occupied", "gift.accepted", "room.vacated"):
        terminal.wait_for(receiver, f'"type":"{event}"')
    assert json.loads(terminal.run("roomcast call --key-file backend-2.key broker.reload"))["changed"] == []
    terminal.run("roomcast key create third --file keys.toml --scope rooms:read")
    changed = json.loads(terminal.run("roomcast call --key-file backend-2.key broker.reload"))["changed"]
    assert changed == ["api.key_file"]
    with pytest.raises(AssertionError, match="AUTH_FAILED"):
        terminal.run("roomcast call --key-file backend.key broker.status")


def test_a_user_of_a_direct_batch_sees_the_message(terminal: Terminal) -> None:
    guide = FOLDER / "direct-messages.md"
    terminal.start("roomcast serve")
    terminal.start("roomcast tail lobby --token dev:ann")
    terminal.run("printf 'user,code\\nann,C-17\\n' > codes.csv")
    terminal.run("roomcast direct --batch b --template '您的优惠码 {code}' --values codes.csv --follow")
    terminal.wait_for(terminal.running[1][2], "C-17")
    (program,) = blocks(guide, "python")
    whole = (
        "import trio\nfrom protocol import open_client\nasync def main():\n"
        '    async with open_client("roomcast://127.0.0.1:7400", token="dev:shop:app") as client:\n'
        + "".join(f"        {line}\n" for line in program.splitlines())
        + "trio.run(main)\n"
    )
    (terminal.folder / "program.py").write_text(terminal.localize(whole))
    assert terminal.run("python program.py").startswith("1 ")


def test_the_application_of_the_questions_answers_them(terminal: Terminal) -> None:
    guide = FOLDER / "questions.md"
    port = str(free_port())
    (secret,), (settings,), (program,), (session,) = (
        blocks(guide, language) for language in ("sh", "toml", "python", "text")
    )
    terminal.run(secret.strip())
    (terminal.folder / "roomcast.toml").write_text(settings.replace("7402", port).replace("= 300", "= 5000"))
    (terminal.folder / "program.py").write_text(program.replace("7402", port))
    application, serve, *says = session.splitlines()
    assert application == "python app.py"
    terminal.running.append((application, *_start_program(terminal)))
    terminal.start(serve)
    for line in says:
        command, _, expected = line.partition("#")
        output = terminal.run(f"{command.strip()} 2>&1 || true")
        assert expected.strip() in output, line


def test_the_program_that_embeds_a_broker_works(terminal: Terminal) -> None:
    program, test_of_an_application = blocks(FOLDER / "embed.md", "python")
    (terminal.folder / "program.py").write_text(program)
    out = terminal.run("python program.py")
    assert "1 posts" in out
    assert "accepted" in out.lower()
    assert "UNKNOWN_ROOM room is not open" in out
    (terminal.folder / "test_shop.py").write_text(test_of_an_application)
    assert "1 passed" in terminal.run("python -m pytest -o trio_mode=true test_shop.py")


def test_the_program_of_readme_works(terminal: Terminal) -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    (terminal.folder / "program.py").write_text(terminal.localize(program))
    terminal.start("roomcast serve")
    terminal.running.append(("", *_start_program(terminal)))
    terminal.wait_for(terminal.running[1][2], "好看")


def test_the_program_for_backends_works(terminal: Terminal) -> None:
    (program,) = blocks(FOLDER / "backends.md", "python")
    program = program.replace("roomcast_client", "protocol").replace(":7401", f":{terminal.api_port}")
    (terminal.folder / "program.py").write_text(program, encoding="utf-8")
    terminal.start(f"roomcast serve --set api.listen=127.0.0.1:{terminal.api_port}")
    published, room, refused = terminal.run("python program.py").splitlines()
    assert published.startswith("Published(")
    assert room == "live-1 0"
    assert refused.startswith("UNKNOWN_ROOM room is not open 0 ")


def test_the_program_of_a_flash_sale_buys_a_unit(terminal: Terminal) -> None:
    assert run_program("flash-sales.md", terminal) == ["RESERVED 1 1990", "sales.claim_confirmed"]
    for event in ("sales.scheduled", "sales.opened", "sales.restocked"):
        terminal.wait_for(terminal.running[1][2], event)
    listed = json.loads(terminal.run("roomcast call sales.list room=lobby"))["items"]
    assert [(sale["id"], sale["state"], sale["confirmed"]) for sale in listed] == [
        ("sale-1", "open", 1), ("sale-2", "settled", 0),
    ]  # fmt: skip


def run_program(guide: str, terminal: Terminal) -> list[str]:
    """Follow a guide, run its programs and return their lines."""
    path = FOLDER / guide
    assert path in WITH_PROGRAMS
    programs = blocks(path, "python")
    assert programs
    run_commands(path, terminal)
    lines: list[str] = []
    for program in programs:
        (terminal.folder / "program.py").write_text(terminal.localize(program.replace("roomcast_client", "protocol")))
        lines += terminal.run("python program.py").splitlines()
    return lines


def test_the_program_of_red_packets_takes_a_share_and_checks_it(terminal: Terminal) -> None:
    assert run_program("red-packets.md", terminal) == ["True 1000"]
    for event in ("packets.scheduled", "packets.opened", "packets.expired", "packets.settled", "rains.cancelled"):
        terminal.wait_for(terminal.running[1][2], event)
    listed = json.loads(terminal.run("roomcast call packets.list room=lobby"))["items"]
    assert [(packet["id"], packet["state"], packet["taken"]) for packet in listed] == [
        ("packet-1", "settled", 0), ("packet-2", "settled", 1),
    ]  # fmt: skip


def test_the_program_of_coupons_claims_a_code_and_has_it_checked(terminal: Terminal) -> None:
    assert run_program("coupons.md", terminal) == ["coupons.issued True", "ann"]
    for text in ("coupons.opened", "Your code: NEW-"):
        terminal.wait_for(terminal.running[1][2], text)


def test_the_program_of_gifts_counts_a_combo_and_shows_a_paid_message(terminal: Terminal) -> None:
    assert run_program("gifts.md", terminal) == [
        "[('cem', 3, '')]", "True True", "Bob 6 bravo", "gifts 5 49500",
        "[('bob', 50000, 1), ('ann', 49500, 2)] 99500",
    ]  # fmt: skip
    viewer = terminal.running[1][2]
    for text in ("Ann gave rose x2, 2.00", "Cem paid 20.00: the red one, please", "Bob paid 500.00: bravo"):
        terminal.wait_for(viewer, text)
    assert json.loads(terminal.run("roomcast call rankings.get room=lobby kind=gifts"))["ranking"]["total"] == 99_500


def test_the_program_of_processes_loses_nothing_when_the_owner_is_killed(terminal: Terminal) -> None:
    assert run_program("processes.md", terminal) == ["40 shares, 10000 cents"]
    terminal.wait_for(terminal.running[1][2], "process has ended")
    added, process, output = terminal.running[2]
    assert "engine.node=more" in added
    assert process.wait(DEADLINE_S) == 0, output.read_text()


def test_each_guide_says_where_the_imports_of_its_programs_come_from() -> None:
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert "roomcast_client" not in text or "pip install ./protocol" in text, path.name


def test_the_programs_of_lotteries_check_an_entry_and_a_proof(terminal: Terminal) -> None:
    assert run_program("lotteries.md", terminal) == ["True mug", "None True"]
    viewer = terminal.running[1][2]
    for event in ("announced", "opened", "closed", "drawn", "voided"):
        terminal.wait_for(viewer, f"lotteries.{event}")
    proof = json.loads((terminal.folder / "proof.json").read_text())
    assert len(proof["entries"]) == 1  # the message with the keyword
    seen = terminal.run(f"roomcast lottery verify proof.json --root {proof['closed']['root']}").split()
    assert seen == ["OK", "beacon:", "none", "seen:", "yes"]
    assert terminal.run("roomcast lottery verify proof-2.json").startswith("OK\n")
    proof["entries"][0][1] = 2
    (terminal.folder / "proof.json").write_text(json.dumps(proof))
    assert terminal.run("roomcast lottery verify proof.json || true").startswith("BAD_")


def test_the_programs_of_polls_vote_answer_and_divide_a_prize(terminal: Terminal) -> None:
    assert run_program("polls.md", terminal) == [
        "2 1 (0, 1) (0, 1000)", "REVEALED (0, 1) True", "('ann', 'cem')", "('ann',)", "1 10000 0", "quizzes.won 10000",
    ]  # fmt: skip
    viewer = terminal.running[1][2]
    for event in ("polls.opened", "polls.closed", "polls.revealed", "quizzes.asked", "quizzes.cancelled"):
        terminal.wait_for(viewer, event)
    listed = json.loads(terminal.run("roomcast call polls.list room=lobby"))["items"]
    assert [(each["id"], each["poll"]["state"]) for each in listed] == [
        ("colour", "closed"), ("later", "cancelled"), ("older", "revealed"),
    ]  # fmt: skip


def test_the_programs_of_products_count_clicks_and_show_an_order(terminal: Terminal) -> None:
    assert run_program("products.md", terminal) == [
        "[('mug-1', 3, 1490)]", "True", "False", "3", "mug-1 3", "orders.shown 1 2",
    ]  # fmt: skip
    viewer = terminal.running[1][2]
    for event in ("put", "explaining", "arranged", "removed"):
        terminal.wait_for(viewer, f"products.{event}")
    (period,) = json.loads(terminal.run("roomcast call products.log room=lobby"))["items"]
    assert period["product"] == "mug-1"
    assert period["from_ms"] < period["to_ms"]
    with pytest.raises(AssertionError, match="STALE"):
        terminal.run("roomcast call products.put room=lobby id=mug-1 version=2 title=Mug price_cents=1990")


def test_the_program_of_audiences_addresses_a_part_of_the_room_and_counts_shares(terminal: Terminal) -> None:
    assert run_program("audiences.md", terminal) == ["2 1 1 ann 1"]
    viewer = terminal.running[1][2]
    terminal.wait_for(viewer, "Your first order is free")
    assert "Thank you for your order" not in viewer.read_text()


def test_the_program_of_sanctions_is_refused_and_then_undone(terminal: Terminal) -> None:
    assert run_program("sanctions.md", terminal) == ["MUTED spam True", "ACCEPTED"]


def test_the_program_of_mic_link_takes_a_seat_and_leaves_it(terminal: Terminal) -> None:
    assert run_program("mic.md", terminal) == [
        "QUEUED 1", "token of the media service", "ON_MIC 1", "[('ann', True)]", "NONE",
    ]  # fmt: skip
    viewer = terminal.running[1][2]
    for event in ("seats_changed", "seat_taken", "seat_muted", "seat_left"):
        terminal.wait_for(viewer, f"mic.{event}")
    seats = json.loads(terminal.run("roomcast call mic.get room=lobby"))
    assert seats == {"seats": 4, "taken": [], "waiting": 0, "queue": []}


def test_the_program_of_pk_compares_the_gifts_of_two_rooms(terminal: Terminal) -> None:
    assert run_program("pk.md", terminal) == ["INVITING studio", "RUNNING lobby", "WON 700 200"]
    for _, _, viewer in terminal.running[1:3]:
        for event in ("started", "ended"):
            terminal.wait_for(viewer, f"pk.{event}")


def test_schedules_fire_once_over_a_restart_or_are_missed(terminal: Terminal) -> None:
    assert run_program("schedules.md", terminal) == ["['The sale opens']", "PENDING True", "FIRED True None"]
    serve, server, _ = terminal.running[0]
    server.kill()
    server.wait(DEADLINE_S)
    until = time.time() + 4.5
    viewer = terminal.running[1][2]
    time.sleep(max(0.0, until - time.time()))
    terminal.start(serve)
    for text in ("The sale opens soon", "It is open", "countdowns.started", "countdowns.stopped"):
        terminal.wait_for(viewer, text)  # the first is made before the end or after it, as its time comes

    def jobs() -> dict[str, tuple[str, bool]]:
        listed = json.loads(terminal.run("roomcast call schedules.list room=lobby"))["items"]
        return {job["id"]: (job["state"], job["has_run"]) for job in listed}

    terminal.wait_for(viewer, "Welcome back")  # its client has joined again
    assert jobs() == {
        "news-1": ("fired", True), "pause-1": ("cancelled", False), "news-2": ("fired", True),
        "news-3": ("fired", True), "news-4": ("missed", False),
    }  # fmt: skip
    assert viewer.read_text().count("Welcome back") == 1
    assert "Starting now" not in viewer.read_text()


def _start_program(terminal: Terminal) -> tuple[subprocess.Popen[str], Path]:
    output = terminal.folder / "program-output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "program.py"], cwd=terminal.folder, env=terminal.environment, stdout=file,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    return process, output


def test_a_moderator_who_follows_the_guide_sees_what_is_held_decided_and_shown(terminal: Terminal) -> None:
    assert run_program("review.md", terminal) == ["ACCEPTED eve insults the host", "1 REJECTED"]
    viewer = terminal.running[1][2]
    terminal.wait_for(viewer, "is the red one left?")
    shown = viewer.read_text()
    assert "how much is it?" in shown
    assert "便宜" not in shown
    assert "hello?" not in shown
    queue = json.loads(terminal.run("roomcast call moderation.queue room=lobby state=rejected"))["items"]
    assert [(each["id"], each["user"], each["held_by"]) for each in queue] == [
        (1, "bob", "words"),
        (3, "eve", "report"),
    ]
    listed = json.loads(terminal.run("roomcast call moderation.list room=lobby"))["items"]
    assert [(each["verb"], each["user"]) for each in listed] == [("ban", "eve")]
