"""Scenarios: definitions of runs, read from TOML.

A scenario defines the messages, the numbers of senders and viewers, the broker's settings and the goals. Flags change
sizes; rates and phases follow. Everything is validated when it is read, and an error names the path of its field.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.config.files import FileError, read_text_of, user_path

__all__ = [
    "SCENARIOS",
    "Cut",
    "FlashSale",
    "LinkScript",
    "LotteryDraw",
    "RedPackets",
    "Scenario",
    "ScenarioError",
    "Sizes",
    "Stream",
    "Target",
    "has_own_size",
    "load_scenario",
    "read_scenario",
    "reference_of",
    "resize",
    "scenario_names",
]

SCENARIOS = Path(__file__).parent / "scenarios"

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[int, Meta(ge=1)]


class ScenarioError(Exception):
    """A scenario cannot be read or is invalid; the text names the file and the field."""


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stream of messages: a ``rate`` for the whole run, or ``phases`` of [share of the run, messages a second]."""

    kind: Literal["danmaku", "like", "gift", "announcement", "commerce"]
    """``commerce`` is a type of the deployment's own on lane 1 (a sale, a claim)."""
    rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Messages a second over all rooms."""
    phases: tuple[tuple[Share, Annotated[float, Meta(ge=0, le=1_000_000)]], ...] = ()
    repeated_share: Share = 0.0
    hot_room_share: Share = 0.0
    count: Annotated[int, Meta(ge=1, le=1000)] = 1

    def timed(self, seconds: float) -> list[tuple[float, float]]:
        """Return the phases in seconds, for a run of ``seconds``."""
        if not self.phases:
            return [(seconds, self.rate)]
        return [(share * seconds, rate) for share, rate in self.phases]

    @property
    def peak(self) -> float:
        """Highest rate."""
        return max((rate for _, rate in self.phases), default=self.rate)


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A share of the viewers is disconnected at a share of the run.

    They reconnect after ``away_s``, spread over ``over_s``.
    """

    at: Share
    share: Share
    away_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    over_s: Annotated[float, Meta(ge=0, le=60)] = 1.0


class LinkScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Behaviour of a share of the simulated links of way (c)."""

    share: Share
    bytes_per_s: Annotated[int, Meta(ge=1)] = 1_000_000
    delay_ms: Annotated[float, Meta(ge=0, le=60_000)] = 20.0
    buffer_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    """Bytes accepted before a send is refused, as by a kernel's buffers."""
    stall_every_s: Annotated[float, Meta(ge=0)] = 0.0
    """0 = never."""
    stall_s: Annotated[float, Meta(ge=0)] = 0.0


class FlashSale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A flash sale in the first room, for buyers of its own. The rates of claims are lifted."""

    at: Share = 0.3
    """When it is created, as a share of the run; it opens a second later."""
    buyers: Annotated[int, Meta(ge=1, le=15_000)] = 5000
    claims: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000
    """Of all buyers together, each with a key of its own."""
    stock: Annotated[int, Meta(ge=1, le=100_000)] = 100
    over_s: Annotated[float, Meta(gt=0, le=600)] = 1.0
    """In which claims are sent, from the opening on."""
    first_window_ms: Annotated[int, Meta(ge=0, le=10_000)] = 500


class RedPackets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Red packets in the first room, for takers of their own, who take a share of each. Rates are lifted."""

    at: Share = 0.3
    """When they are created, as a share of the run; they open a second later."""
    takers: Annotated[int, Meta(ge=1, le=10_000)] = 5000
    """A packet has as many shares."""
    packets: Annotated[int, Meta(ge=0, le=100)] = 10
    """0 = the takers only watch."""
    over_s: Annotated[float, Meta(gt=0, le=600)] = 1.0
    """In which grabs are sent, from the opening on."""


class LotteryDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A lottery in the first room, for entrants of its own. Rates are lifted."""

    at: Share = 0.1
    """When it is announced, as a share of the run; it opens a second later."""
    entrants: Annotated[int, Meta(ge=1, le=10_000)] = 2000
    """Users with links, who enter by CALL."""
    entries: Annotated[int, Meta(ge=0, le=1_000_000)] = 100_000
    """In all; what the entrants do not make is made in the broker's process. 0 = the entrants only watch."""
    winners: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    over_s: Annotated[float, Meta(gt=0, le=600)] = 1.0
    """In which entrants enter, from the opening on."""
    open_s: Annotated[float, Meta(gt=0, le=600)] = 30.0
    """For how long it is open."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Goal for a figure: ``metric`` (a name of the report's headline) at most, or at least, a bound."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    full_size_only: bool = True
    """Whether the goal is evaluated only when the run has the scenario's own size."""

    @property
    def kind(self) -> str:
        """``at most`` or ``at least``."""
        return "at least" if self.at_most is None else "at most"

    @property
    def bound(self) -> float:
        """The bound."""
        return (self.at_least or 0.0) if self.at_most is None else self.at_most


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Definition of a run."""

    name: str
    title: str
    purpose: str
    """What it measures, in a sentence or two for the report."""
    way: Literal["sockets", "shared", "memory"] = "sockets"
    """``sockets``: (a) a real link for each viewer. ``shared``: (b) real members that share sockets. ``memory``: (c)
    scripted links without sockets, for policies only."""
    viewers: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    rooms: Annotated[int, Meta(ge=1, le=100_000)] = 1
    seconds: Annotated[float, Meta(ge=1, le=86_400)] = 20.0
    transport: Literal["tcp", "websocket", "mixed"] = "mixed"
    features: Literal["plain", "lz4", "dictionary"] = "dictionary"
    tier: Literal[20, 10, 5] = 20
    viewer_processes: Annotated[int, Meta(ge=1, le=16)] = 1
    sockets: Annotated[int, Meta(ge=1, le=19_000)] = 12_500
    """Shared sockets of way (b), over all viewer processes."""
    connect_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 4000.0
    """Connection attempts a second; 0 = all at once."""
    auth: Literal["token", "dev", "guest"] = "token"
    users: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """Links that post danmaku and likes; each is one user."""
    chat_role: Literal["viewer", "vip", "moderator"] = "viewer"
    """Moderators have no user limits, so few links can post much."""
    streams: tuple[Stream, ...] = ()
    cuts: tuple[Cut, ...] = ()
    api_calls_per_s: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    """Calls of the control API a second beside the streams; the broker needs ``[broker.api]``, and ``auth`` dev."""
    api_connections: Annotated[int, Meta(ge=1, le=64)] = 8
    stalled_share: Share = 0.0
    throttled_share: Share = 0.0
    throttle_bytes_per_s: Positive = 2048
    links: tuple[LinkScript, ...] = ()
    """Way (c) only: how the simulated links behave; shares add up to 1."""
    durable: bool = False
    """The broker keeps a ledger, which is verified and added up when the broker has ended. The disk alone is timed in
    the same directory and run."""
    sale: FlashSale | None = None
    packets: RedPackets | None = None
    lottery: LotteryDraw | None = None
    webhooks: Literal["none", "present", "away"] = "none"
    """Every durable message is reported to a receiver on this machine: one that takes it, or a port that refuses."""
    floor_sweeps: Annotated[int, Meta(ge=0, le=50)] = 5
    broker: dict[str, Any] = {}
    """Settings of the broker, as in its own TOML (`roomcast print-config`). Any: checked by the broker's own loader."""
    reference: dict[str, Any] = {}
    """Fields that differ in the reference run, with which this run is compared. Any: validated as fields of this
    struct."""
    targets: tuple[Target, ...] = ()
    smoke: dict[str, Any] = {}
    """Fields that ``--smoke`` replaces. Any: checked as fields of this struct."""

    @property
    def has_activities(self) -> bool:
        """Whether there is a sale, packets or a lottery."""
        return any(each is not None for each in (self.sale, self.packets, self.lottery))

    @property
    def websocket_share(self) -> float:
        """Share of the viewers that connect by WebSocket."""
        return {"tcp": 0.0, "websocket": 1.0, "mixed": 0.5}[self.transport]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes set by flags; None = as the scenario says."""

    viewers: int | None = None
    rooms: int | None = None
    rate: float | None = None
    """Danmaku a second at the peak, gifts where a scenario has no danmaku; all phases are scaled."""
    seconds: float | None = None
    transport: str | None = None
    viewer_processes: int | None = None
    smoke: bool = False


def scenario_names() -> list[str]:
    """Return the names of the scenarios of the bench, sorted."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """Return the scenario called ``name``, or the one in the file of that path. ScenarioError if there is none."""
    path = SCENARIOS / f"{name}.toml"
    if not path.exists():
        path = user_path(name)
        if path.suffix != ".toml" or not path.exists():
            raise ScenarioError(f"there is no scenario {name!r}; there are {', '.join(scenario_names())}")
    try:
        return read_scenario(read_text_of(path), path.stem)
    except FileError as error:
        raise ScenarioError(str(error)) from error


def read_scenario(text: str, name: str) -> Scenario:
    """Parse a scenario. ScenarioError names the field."""
    try:
        table = tomllib.loads(text)
        scenario = msgspec.convert({"name": name, **table}, Scenario)
        reference_of(scenario)
        msgspec.convert({**msgspec.to_builtins(scenario), **scenario.smoke}, Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ScenarioError(f"scenario {name}: {error}") from error
    for target in scenario.targets:
        if (target.at_most is None) is (target.at_least is None):
            raise ScenarioError(f"scenario {name}: the target {target.metric} needs at_most or at_least")
    for stream in scenario.streams:
        if stream.phases and sum(share for share, _ in stream.phases) > 1.0001:
            raise ScenarioError(f"scenario {name}: the phases of {stream.kind} are longer than the run")
        if stream.phases and stream.rate:
            raise ScenarioError(f"scenario {name}: {stream.kind} has both a rate and phases")
    if scenario.stalled_share + scenario.throttled_share > 1:
        raise ScenarioError(f"scenario {name}: more slow viewers than viewers")
    if (scenario.way == "memory") is not bool(scenario.links):
        raise ScenarioError(f"scenario {name}: links are for way memory, and way memory needs them")
    if scenario.links and abs(sum(link.share for link in scenario.links) - 1) > 1e-6:
        raise ScenarioError(f"scenario {name}: the shares of the links do not add up to 1")
    if scenario.rooms > scenario.viewers:
        raise ScenarioError(f"scenario {name}: more rooms than viewers")
    if scenario.durable and scenario.way == "memory":
        raise ScenarioError(f"scenario {name}: way memory has no broker process, so nothing can be durable")
    if scenario.has_activities and (scenario.way != "sockets" or not scenario.durable):
        raise ScenarioError(f"scenario {name}: activities need links and a ledger: durable = true")
    if scenario.webhooks != "none" and not scenario.durable:
        raise ScenarioError(f"scenario {name}: webhooks need a ledger: durable = true")
    return scenario


def reference_of(scenario: Scenario) -> Scenario | None:
    """Return the reference run of ``scenario``, None if it has none."""
    if not scenario.reference:
        return None
    plain = {**msgspec.to_builtins(scenario), **scenario.reference, "reference": {}, "targets": []}
    return msgspec.convert(plain, Scenario)


def resize(scenario: Scenario, sizes: Sizes) -> Scenario:
    """Return ``scenario`` with other sizes. ScenarioError where they are invalid."""
    changes: dict[str, Any] = {}
    if sizes.smoke:
        changes |= scenario.smoke
    for field in ("viewers", "rooms", "seconds", "transport", "viewer_processes"):
        value = getattr(sizes, field)
        if value is not None:
            changes[field] = value
    viewers = changes.get("viewers", scenario.viewers)
    if "rooms" not in changes and scenario.rooms > viewers:
        changes["rooms"] = viewers
    try:
        resized = msgspec.convert({**msgspec.to_builtins(scenario), **changes}, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"scenario {scenario.name} cannot have this size: {error}") from error
    rate = sizes.rate
    if rate is not None:
        scaled, peak = _scaled_kind(resized)
        streams = tuple(stream if stream.kind != scaled else _scaled(stream, rate / peak) for stream in resized.streams)
        resized = msgspec.structs.replace(resized, streams=streams)
    if resized.rooms > resized.viewers:
        raise ScenarioError(f"scenario {scenario.name}: {resized.rooms} rooms need as many viewers")
    return resized


def has_own_size(own: Scenario, resized: Scenario) -> bool:
    """Return whether a run is as large as the scenario says, or longer: its goals are defined for that size."""
    same = msgspec.structs.replace(resized, seconds=own.seconds, viewer_processes=own.viewer_processes)
    return resized.seconds >= own.seconds and same == own


def _scaled_kind(scenario: Scenario) -> tuple[str, float]:
    """Return what ``--rate`` scales (danmaku, or gifts if there are none) and the peak of their rate."""
    for kind in ("danmaku", "gift"):
        peak = max((stream.peak for stream in scenario.streams if stream.kind == kind), default=0.0)
        if peak:
            return kind, peak
    raise ScenarioError(f"scenario {scenario.name} sends neither danmaku nor gifts, so --rate has nothing to scale")


def _scaled(stream: Stream, factor: float) -> Stream:
    phases = tuple((share, value * factor) for share, value in stream.phases)
    return msgspec.structs.replace(stream, rate=stream.rate * factor, phases=phases)
