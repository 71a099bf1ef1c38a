from __future__ import annotations

import pytest

from bench.report.metrics import METRICS
from bench.run import plain_toml
from bench.scenario import ScenarioError, Sizes, load_scenario, read_scenario, reference_of, resize, scenario_names
from broker.config.schema import load

DEMANDED = {
    "calm", "one-room-100k", "thousand-rooms", "chat-flood", "like-storm", "gift-rain", "join-storm", "reconnect-storm",
    "slow-viewers", "mixed", "soak", "durable-gifts", "api-storm", "flash-sale", "red-packet",
    "lottery", "mixed-show",
}  # fmt: skip


def test_every_demanded_scenario_is_there() -> None:
    assert set(scenario_names()) >= DEMANDED


@pytest.mark.parametrize("name", scenario_names())
def test_a_scenario_reads_has_a_smoke_size_and_names_known_metrics(name: str) -> None:
    scenario = load_scenario(name)
    smoke = resize(scenario, Sizes(smoke=True))
    assert smoke.viewers <= 2000
    assert smoke.seconds <= 10
    assert all(target.metric in METRICS for target in scenario.targets)
    assert scenario.purpose
    reference = reference_of(scenario)
    assert reference is None or not reference.reference


def test_a_mistake_is_named_with_its_path() -> None:
    with pytest.raises(ScenarioError, match=r"mine: .*viewrs"):
        read_scenario("title='t'\npurpose='p'\nviewrs=3\n", "mine")
    with pytest.raises(ScenarioError, match=r"streams\[0\]\.kind"):
        read_scenario("title='t'\npurpose='p'\n[[streams]]\nkind='shout'\n", "mine")
    with pytest.raises(ScenarioError, match="longer than the run"):
        read_scenario("title='t'\npurpose='p'\n[[streams]]\nkind='danmaku'\nphases=[[0.8,1],[0.8,1]]\n", "mine")
    with pytest.raises(ScenarioError, match="activities need links and a ledger"):
        read_scenario("title='t'\npurpose='p'\nviewers=1\nrooms=1\nseconds=1\n[sale]\nbuyers=2\n", "mine")
    with pytest.raises(ScenarioError, match="calm"):
        load_scenario("no-such-scenario")


def test_flags_resize_and_rates_keep_their_proportion() -> None:
    scenario = load_scenario("chat-flood")
    resized = resize(scenario, Sizes(viewers=7, rate=200.0, seconds=10.0, transport="tcp"))
    danmaku = next(stream for stream in resized.streams if stream.kind == "danmaku")
    assert (resized.viewers, resized.seconds, resized.transport, danmaku.peak) == (7, 10.0, "tcp", 200.0)
    assert [rate for _, rate in danmaku.phases] == [2.0, 200.0, 2.0]
    assert [seconds for seconds, _ in danmaku.timed(10.0)] == [3.0, 4.0, 3.0]
    with pytest.raises(ScenarioError, match="rooms"):
        resize(scenario, Sizes(viewers=2, rooms=3))
    assert resize(load_scenario("thousand-rooms"), Sizes(viewers=10)).rooms == 10
    (gifts,) = resize(load_scenario("durable-gifts"), Sizes(rate=500.0)).streams
    assert (gifts.kind, gifts.rate) == ("gift", 500.0)


@pytest.mark.parametrize("name", scenario_names())
def test_the_settings_of_a_scenario_are_the_brokers_own(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    scenario = load_scenario(name)
    path = tmp_path_factory.mktemp("settings") / "broker.toml"
    path.write_text(plain_toml({"listen": {"port": 0}, **scenario.broker}), encoding="utf-8")
    load(path)
