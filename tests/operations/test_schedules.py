"""Schedules and countdowns over HTTP and CALL: operations that run at their time, once, with their creator's rights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.auth.api_keys import ApiKey, ApiKeys
from broker.operations.caller import Caller
from broker.operations.creators import caller_again, creator_of
from broker.server import Broker
from broker.users.revocations import Revocations
from protocol.activities.schedules import JobState, JobView
from protocol.clients import open_client
from protocol.clients.events import CallRefused
from protocol.codes import ErrorCode, Role, RoomPhase
from protocol.operations import BY_NAME, Scope
from protocol.operations.schedules import CancelSchedule, ChangeSchedule
from tests.support.api import API, client_of, ok, refused
from tests.support.clocks import advance_to
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.until import until

pytestmark = pytest.mark.integration
ROOM = "live-1"
PAUSE = {"room": ROOM, "phase": "paused"}


def soon(broker: Broker, ms: int = 30_000) -> int:
    """Return a time that a request on a busy machine comes before."""
    return broker.clock.now_ms() + ms


async def job_of(http: Any, id: str) -> Any:
    page = await ok(http, "schedules.list", room=ROOM)
    return next(each for each in page["items"] if each["id"] == id)


async def has_run(broker: Broker, id: str) -> JobView:
    """Go on to the time of a job, and wait until it has run."""

    def job() -> JobView | None:
        room = broker.hub.find(ROOM)
        activities = None if room is None else room.state.activities.activities
        found = None if activities is None else activities.find("schedules", id)
        return None if found is None else found.job()

    if (view := job()) is not None:
        advance_to(view.at_ms)
    await until(lambda: (view := job()) is not None and view.has_run)
    view = job()
    assert view is not None
    return view


async def test_a_scheduled_operation_runs_at_its_time(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        at_ms = soon(broker)
        job = await ok(
            http, "schedules.create", room=ROOM, id="j", operation="rooms.set_phase", request=PAUSE, at_ms=at_ms
        )
        assert (job["state"], job["version"], job["request"]) == ("pending", 1, PAUSE)
        await has_run(broker, "j")
        job = await job_of(http, "j")
        assert (job["state"], job["refusal"]) == ("fired", None)
        assert job["fired_at_ms"] >= at_ms
        room = broker.hub.find(ROOM)
        assert room is not None
        assert room.state.phase is RoomPhase.PAUSED


async def test_operations_of_the_same_time_run_in_order_of_creation(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        at_ms = soon(broker)
        for number in range(5):
            message = {"room": ROOM, "type": 4, "payload": [f"news {number}"]}
            await ok(
                http, "schedules.create", room=ROOM, id=f"j{number}", operation="messages.publish", request=message,
                at_ms=at_ms,
            )  # fmt: skip
        await has_run(broker, "j4")
        room = broker.hub.find(ROOM)
        assert room is not None
        events = room.missing(room.state.epoch, 0, trio.current_time())
        assert events is not None
        assert [each.event.payload[0] for each in events] == [f"news {number}" for number in range(5)]


async def test_a_job_is_changed_and_cancelled(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        fields: dict[str, Any] = {"room": ROOM, "id": "j", "operation": "rooms.set_phase", "request": PAUSE}
        at_ms = soon(broker, 3_600_000)
        await ok(http, "schedules.create", **fields, at_ms=at_ms)
        assert await refused(http, "schedules.create", **fields, at_ms=at_ms + 1) == (409, "KEY_REUSED", "id")
        changed = await ok(http, "schedules.change", room=ROOM, id="j", at_ms=at_ms + 1, version=1)
        assert changed["version"] == 2
        stale = await refused(http, "schedules.change", room=ROOM, id="j", at_ms=at_ms + 2, version=1)
        assert stale == (409, "STALE", "version")
        assert (await ok(http, "schedules.cancel", room=ROOM, id="j"))["state"] == "cancelled"
        assert (await ok(http, "schedules.list", room=ROOM, state="pending"))["items"] == []
        assert (await refused(http, "schedules.cancel", room=ROOM, id="x"))[1] == "UNKNOWN_ACTIVITY"


async def test_what_its_creator_could_not_do_is_not_scheduled(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        fields: dict[str, Any] = {"room": ROOM, "id": "j", "at_ms": soon(broker, 60_000)}
        for operation, request, code, field in (
            ("rooms.fly", {}, "BAD_FIELD", "operation"),
            ("rooms.get", {"room": ROOM}, "BAD_FIELD", "operation"),
            ("rooms.set_phase", {"room": ROOM}, "BAD_FIELD", "request.phase"),
            ("mic.request", {"room": ROOM}, "NOT_ALLOWED", "operation"),
        ):
            found = await refused(http, "schedules.create", **fields, operation=operation, request=request)
            assert found[1:] == (code, field)
        url = f"roomcast://127.0.0.1:{broker.addresses[0][1]}"
        async with open_client(url, "dev:host:host") as host:
            await host.join(ROOM)
            with pytest.raises(CallRefused) as caught:
                await host.call(
                    "schedules.create", room=ROOM, id="j", at_ms=fields["at_ms"], operation="broker.drain", request={}
                )
            assert caught.value.code == ErrorCode.NOT_ALLOWED


async def test_who_could_not_run_a_job_neither_reads_nor_changes_nor_cancels_it(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        at_ms = soon(broker, 3_600_000)
        codes = {"room": ROOM, "id": "vip", "codes": ["A-1"]}
        for id, operation, request in (("codes", "coupons.upload", codes), ("pause", "rooms.set_phase", PAUSE)):
            await ok(http, "schedules.create", room=ROOM, id=id, operation=operation, request=request, at_ms=at_ms)
        forbidden: tuple[Any, ...] = (ChangeSchedule(ROOM, "codes", at_ms + 1, 1), CancelSchedule(ROOM, "codes"))
        for role in ("assistant", "host"):
            async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", f"dev:{role}:{role}") as staff:
                await staff.join(ROOM)
                page = await staff.call("schedules.list", room=ROOM)
                assert [(each.id, each.request) for each in page.items] == [("codes", None), ("pause", PAUSE)]
                for each in forbidden:
                    with pytest.raises(CallRefused) as caught:
                        await staff.call(each)
                    assert (caught.value.code, caught.value.field) == (ErrorCode.NOT_ALLOWED, "operation")
        job = await job_of(http, "codes")
        assert (job["state"], job["version"], job["at_ms"], job["request"]) == ("pending", 1, at_ms, codes)
        assert (await ok(http, "schedules.cancel", room=ROOM, id="codes"))["state"] == "cancelled"


async def test_a_job_of_a_host_runs_with_its_role(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker:
        async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:host:host") as host:
            await host.join(ROOM)
            await host.call(
                "schedules.create", room=ROOM, id="j", at_ms=soon(broker), operation="rooms.set_phase",
                request=PAUSE,
            )  # fmt: skip
        assert (await has_run(broker, "j")).refusal is None


async def test_what_was_scheduled_with_a_revoked_token_is_cancelled_and_other_jobs_stay(
    directory: Path,
) -> None:
    async with durable_broker(directory) as broker:
        at_ms = soon(broker, 3_600_000)
        row = BY_NAME["schedules.create"]
        for id, jti in (("stolen", "t-1"), ("own", "t-2"), ("none", "")):
            host = Caller("ann", "Ann", "10.0.0.1", lambda room: Role.HOST, frozenset({Role.HOST}), jti=jti)
            await broker.operations.call(host, row, (ROOM, id, "rooms.set_phase", PAUSE, at_ms))
        await operate(broker, "users.revoke", None, 0, "t-1", at_ms)
        page = await operate(broker, "schedules.list", ROOM)
        states = {job.id: job.state for job in page.items}
        assert states == {"stolen": JobState.CANCELLED, "own": JobState.PENDING, "none": JobState.PENDING}


async def test_a_job_that_fell_due_meanwhile_runs_after_the_restart_or_is_missed(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        at_ms = soon(broker)
        for id, late in (("late", "late"), ("skip", "skip")):
            await ok(
                http, "schedules.create", room=ROOM, id=id, operation="rooms.set_phase", request=PAUSE, at_ms=at_ms,
                late=late, late_ms=0,
            )  # fmt: skip
    advance_to(at_ms + 100)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        assert (await has_run(broker, "late")).state is JobState.FIRED
        assert (await job_of(http, "skip"))["state"] == "missed"
        room = broker.hub.find(ROOM)
        assert room is not None
        assert room.state.phase is RoomPhase.PAUSED


async def test_a_job_that_has_fired_and_not_run_runs_after_the_restart(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(self: Any, job: Any) -> None:
        await trio.sleep_forever()

    with monkeypatch.context() as patch:
        patch.setattr("broker.operations.action_runs.ActionRuns._run_job", stuck)
        async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
            await ok(
                http, "schedules.create", room=ROOM, id="j", operation="rooms.set_phase", request=PAUSE,
                at_ms=soon(broker), late="skip", late_ms=5000,
            )  # fmt: skip
            room = broker.hub.find(ROOM)
            assert room is not None
            activities = room.state.activities.activities
            assert activities is not None
            advance_to(activities.find("schedules", "j").job().at_ms)
            await until(lambda: activities.find("schedules", "j").job().state is JobState.FIRED)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        assert (await has_run(broker, "j")).refusal is None


async def test_a_refused_operation_is_recorded(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        await ok(http, "rooms.open", room=ROOM)
        await ok(
            http, "schedules.create", room=ROOM, id="j", operation="locks.release", request={"fence": 1},
            at_ms=soon(broker),
        )  # fmt: skip
        job = await has_run(broker, "j")
        assert (job.state, job.refusal) == (JobState.FIRED, "STALE")


async def test_a_countdown_is_seen_by_who_joins(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        fields: dict[str, Any] = {
            "room": ROOM,
            "id": "c",
            "label": "The sale opens",
            "deadline_ms": soon(broker, 60_000),
        }
        started = await ok(http, "countdowns.start", **fields)
        assert await ok(http, "countdowns.start", **fields) == started
        async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:ann") as ann:
            snapshot = (await ann.join(ROOM)).snapshot
            assert snapshot is not None
            (view,) = snapshot.activities
            assert (view.kind, view.id, view.data.label) == ("countdowns", "c", "The sale opens")
        assert (await ok(http, "countdowns.stop", room=ROOM, id="c"))["is_over"]
        assert (await refused(http, "countdowns.stop", room=ROOM, id="x"))[1] == "UNKNOWN_ACTIVITY"
        assert (await refused(http, "countdowns.start", **fields | {"id": "d", "deadline_ms": 1}))[2] == "deadline_ms"


async def test_rights_are_those_of_the_time_when_it_runs() -> None:
    revocations = Revocations(None, lambda: 0)
    host = Caller("ann", "Ann", "127.0.0.1", lambda room: Role.HOST, frozenset({Role.HOST}))
    creator = creator_of(host, ROOM, 5_000_000)
    again = caller_again(creator, "job/j/1", lambda: None, revocations, 6000)
    assert again is not None
    assert (again.role_in(ROOM), again.role_in("live-2"), again.key) == (Role.HOST, None, "job/j/1")
    stolen = creator_of(replace(host, jti="t-1"), ROOM, 5_000_000)
    assert caller_again(stolen, "", lambda: None, revocations, 6000) is not None
    await revocations.revoke_token("", "t-1", 6_000_000)
    assert caller_again(stolen, "", lambda: None, revocations, 6000) is None
    assert caller_again(creator, "", lambda: None, revocations, 6000) is not None
    key = Caller("shop", "shop", "127.0.0.1", lambda room: Role.APP, frozenset({Role.APP}), frozenset({Scope.ADMIN}))
    scopes = frozenset({Scope.ROOMS_READ})
    keys = ApiKeys({"shop": ApiKey("shop", b"", scopes, expires_at=100)}, lambda: 0)
    creator = creator_of(key, ROOM, 0)
    now = caller_again(creator, "", lambda: keys, revocations, 99)
    assert now is not None
    assert now.scopes == scopes
    assert caller_again(creator, "", lambda: keys, revocations, 100) is None
    assert caller_again(creator, "", lambda: ApiKeys({}, lambda: 0), revocations, 0) is None
    program = creator_of(Caller("x", "x", "", lambda room: Role.APP, scopes=scopes), ROOM, 0)
    assert caller_again(program, "", lambda: ApiKeys({}, lambda: 0), revocations, 0) is not None
