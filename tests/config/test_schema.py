from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import sections as module
from broker.config.loader import field_docs
from broker.config.schema import (
    RELOADABLE,
    AuthConfig,
    Config,
    ConfigError,
    LinkConfig,
    ListenConfig,
    RoomConfig,
    TenantConfig,
    TypeConfig,
    changed_settings,
    is_loopback,
    load,
    problems_of,
    settings_of,
    to_toml,
    without_limit,
)
from broker.core.rooms.own_rules import ROOM_RULES
from protocol.codes import MESSAGE_TYPES, Lane, MessageType, Role, TypeRule

SECRET = "0123456789abcdef0123456789abcdef"
PARTS = [field.type for field in msgspec.structs.fields(Config) if field.name not in ("types", "tenants")]
PARTS += [TypeConfig, TenantConfig]


def load_text(tmp_path: Path, text: str, env: dict[str, str] | None = None, **overrides: Any) -> Config:
    path = tmp_path / "roomcast.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, env, overrides)


def problems(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text, env)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_no_settings_at_all_are_the_defaults_in_development_mode() -> None:
    config = load()
    assert config == Config()
    assert config.development
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 7400)
    assert problems_of(config) == []


@pytest.mark.parametrize("comments", [True, False])
def test_the_printed_defaults_load_to_the_defaults(tmp_path: Path, comments: bool) -> None:
    assert load_text(tmp_path, to_toml(Config(), comments=comments)) == Config()


def test_every_default_keeps_its_own_rule() -> None:
    for part in PARTS[:-2]:
        assert msgspec.convert(msgspec.to_builtins(part()), part) == part()


@pytest.mark.parametrize("part", PARTS)
def test_every_field_says_what_it_is(part: type[msgspec.Struct]) -> None:
    docs = field_docs(part)
    assert set(docs) == set(part.__struct_fields__)
    assert all(len(text) > 10 for text in docs.values())


@pytest.mark.parametrize("part", PARTS)
def test_every_number_has_a_range(part: type[msgspec.Struct]) -> None:
    schema = msgspec.json.schema(part)["$defs"][part.__name__]["properties"]
    for name, field in schema.items():
        for kind in field.get("anyOf", [field]):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "maximum"} <= kind.keys(), name


def test_the_three_layers_win_in_order(tmp_path: Path) -> None:
    text = "[listen]\nport = 1\n[link]\nheartbeat_s = 20\n[queue]\nframes = 9"
    env = {"ROOMCAST_LISTEN__PORT": "2", "ROOMCAST_LINK__HEARTBEAT_S": "21", "ROOMCAST_CONFIG": "x", "PATH": "/bin"}
    config = load_text(tmp_path, text, env, **{"listen.port": 3, "listen.host": None})
    assert (config.listen.port, config.link.heartbeat_s, config.queue.frames) == (3, 21.0, 9)


def test_files_that_an_editor_of_windows_saved_are_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b" \r\n")
    (tmp_path / "config").write_bytes(
        b"\xef\xbb\xbf[listen]\r\nport = 7411\r\n[auth]\r\nsecret_file = '%s'\r\n" % bytes(tmp_path / "secret")
    )
    config = load(tmp_path / "config", {})
    assert (config.listen.port, config.auth.secret) == (7411, SECRET)


SERVICE = {
    "_SERVICE_HOST": "10.0.0.7", "_SERVICE_PORT": "7400", "_SERVICE_PORT_WEB_SOCKET": "7400",
    "_PORT": "tcp://10.0.0.7:7400", "_PORT_7400_TCP": "tcp://10.0.0.7:7400", "_PORT_7400_TCP_PROTO": "tcp",
    "_PORT_7400_TCP_PORT": "7400", "_PORT_7400_TCP_ADDR": "10.0.0.7",
}  # fmt: skip
"""What Kubernetes sets in every container for a service, after its name in capitals."""


@pytest.mark.parametrize("service", ["ROOMCAST", "ROOMCAST_LEDGER", "ROOMCAST_PORT", "ROOMCAST_2"])
def test_the_variables_of_a_service_of_kubernetes_are_no_settings(service: str) -> None:
    assert load(None, {service + name: value for name, value in SERVICE.items()}) == load(None, {})


@pytest.mark.parametrize("variable", ["ROOMCAST_PORT", "ROOMCAST_SERVICE_PORT", "ROOMCAST_LISTEN_PORT"])
def test_a_variable_that_only_resembles_those_of_a_service_is_refused(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}: unknown variable"):
        load(None, {variable: "7400"})


def test_overrides_are_dotted_or_nested_and_may_be_text() -> None:
    config = load(None, {}, {"listen": {"port": "0"}, "listen.proxy_protocol": "off", "log.level": "debug"})
    assert (config.listen.port, config.log.level) == (0, "debug")


def test_a_wrong_value_names_path_and_rule(tmp_path: Path) -> None:
    assert problems(tmp_path, "[listen]\nport = 70000") == ["listen.port: expected int <= 65535, got 70000"]


def test_all_problems_are_found_in_one_run(tmp_path: Path) -> None:
    text = """
    prot = 3
    [listen]
    hots = "x"
    [link]
    heartbeat_s = 40
    [room]
    policy = "romcast"
    tick_ms = 500
    """
    found = problems(tmp_path, text, {"ROOMCAST_ROOM__TICK_MAX_MS": "50", "ROOMCAST_LISTEN_PORT": "1"})
    assert found == [
        "prot: unknown key; did you mean listen.port?",
        "listen.hots: unknown key; did you mean listen.host?",
        "room.policy: expected one of roomcast, tencent, rongcloud, nim, goim, off, got 'romcast';"
        " did you mean roomcast?",
        "ROOMCAST_LISTEN_PORT: unknown variable; did you mean ROOMCAST_LISTEN__PORT?",
        "link.heartbeat_cut_s: expected more than 2 x link.heartbeat_s (80), got 75",
        "room.tick_ms: expected at most room.tick_max_ms (50), got 500",
    ]


def test_a_check_between_fields_is_silent_where_a_field_is_already_wrong(tmp_path: Path) -> None:
    found = problems(tmp_path, "[link]\nheartbeat_s = 40\nheartbeat_cut_s = 'x'")
    assert found == ["link.heartbeat_cut_s: expected float, got 'x'"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "live.example.com", "127.0.0.1.example.com"])
def test_without_a_secret_only_loopback_is_served(host: str, tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"[listen]\nhost = '{host}'")
    assert found.startswith(f"listen.host: {host} is not loopback")
    config = load_text(tmp_path, f"[listen]\nhost = '{host}'\n[auth]\nsecret = '{SECRET}'")
    assert not config.development


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_needs_no_secret(host: str) -> None:
    assert is_loopback(host)
    assert load(None, {}, {"listen.host": host}).development


def test_a_proxy_in_front_needs_a_secret_and_trusted_networks(tmp_path: Path) -> None:
    found = problems(tmp_path, "[listen]\nproxy_protocol = true")
    assert [line.split(":")[0] for line in found] == ["listen.trusted_proxies", "listen.proxy_protocol"]
    text = f"[listen]\nproxy_protocol = true\ntrusted_proxies = ['10.0.0.0/8', '::1']\n[auth]\nsecret = '{SECRET}'"
    assert load_text(tmp_path, text).listen.trusted_proxies == ("10.0.0.0/8", "::1")


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "", "*"])
def test_a_trusted_proxy_is_a_network(network: str, tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"[listen]\ntrusted_proxies = ['10.0.0.0/8', '{network}']")
    assert found.startswith("listen.trusted_proxies[1]: expected a network such as 10.0.0.0/8")


@pytest.mark.parametrize(
    "origin",
    ["https://a.example.com/", "https://A.example.com", "a.example.com", "null", "*", "https://*.example.com",
     "https://u@a.example.com", "https://a.example.com\n", "https://", "https://a b", "https://a.example.com/live",
     "https://a.example.com?x", "https://a.example.com#x", "wss://a.example.com", "file://a"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"such as https://live\.example\.com"):
        load(None, {}, {"link": {"allowed_origins": [origin]}})


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("https://a.example:443", "browsers leave this port out: https://a.example"),
        ("http://a.example:80", "browsers leave this port out: http://a.example"),
        ("http://[::1]:80", "browsers leave this port out"),
        ("https://a.example:", "browsers leave this port out"),
        ("https://a.example:0", "0 is no port"),
        ("https://a.example:65536", "65536 is no port"),
        ("https://a.example:08443", "08443 is no port"),
        ("http://[0:0::1]:8080", r"browsers send \[::1\]"),
        ("http://[::g]", "such as https"),
        ("http://1.2.3.400", "is no IPv4 address"),
        ("http://1.2.3", "is no IPv4 address"),
        ("https://书.example", "ASCII form"),
    ],
)
def test_an_origin_in_another_form_than_browsers_send_is_refused_with_its_field(origin: str, why: str) -> None:
    with pytest.raises(ConfigError, match=r"link\.allowed_origins\[1\]: .*" + why):
        load(None, {}, {"link": {"allowed_origins": ["https://live.example.com", origin]}})


def test_an_origin_that_browsers_send_is_taken() -> None:
    origins = ("https://live.example.com", "http://localhost:8000", "http://[::1]:8080", "capacitor://localhost")
    assert load(None, {"ROOMCAST_LINK__ALLOWED_ORIGINS": ", ".join(origins)}).link.allowed_origins == origins


def test_certificate_and_key_come_together_and_can_be_read(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("x")
    assert problems(tmp_path, f"[listen]\ntls_cert = '{cert}'") == ["listen.tls_key: is required with listen.tls_cert"]
    assert problems(tmp_path, f"[listen]\ntls_key = '{cert}'") == ["listen.tls_cert: is required with listen.tls_key"]
    (found,) = problems(tmp_path, f"[listen]\ntls_key = '{cert}'\ntls_cert = '{tmp_path}/none'")
    assert found == f"listen.tls_cert: cannot read {tmp_path}/none: No such file or directory"


def test_the_secret_comes_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    config = load_text(tmp_path, f"[auth]\nsecret_file = '{secret}'\n[listen]\nhost = '0.0.0.0'")
    assert (config.auth.secret, config.development) == (SECRET, False)
    assert load_text(tmp_path, to_toml(config)) == config


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"x" * 31, "auth.secret_file: 31 bytes are too few, HS256 needs 32 or more: `openssl rand -hex 32`"),
        (b"\n", "auth.secret_file: 0 bytes are too few, HS256 needs 32 or more: `openssl rand -hex 32`"),
        (b"\xff" * 40, "is not text"),
        (b"-----BEGIN PUBLIC KEY-----\nabcdefghijklmnop", "a key pair's file"),
        (b'{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAA"}', "a key pair's file"),
        (None, "No such file"),
    ],
)
def test_a_bad_secret_file_is_refused(content: bytes | None, expected: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    (found,) = problems(tmp_path, f"[auth]\nsecret_file = '{secret}'")
    assert expected in found


def test_a_secret_is_counted_in_bytes() -> None:
    assert load(None, {"ROOMCAST_AUTH__SECRET": "密" * 11}).auth.secret == "密" * 11
    for short in ("", "密" * 10, "x" * 31):
        with pytest.raises(ConfigError, match=r"^auth.secret: .* bytes are too few"):
            load(None, {"ROOMCAST_AUTH__SECRET": short})


def test_two_secrets_are_one_too_many(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"[auth]\nsecret_file = 'x'\nsecret = '{SECRET}'")
    assert found == "auth.secret: set either this or auth.secret_file, not both"


def test_the_previous_secret_is_read_and_checked_as_the_secret_is(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).write_text(name * 11)
        (tmp_path / name).chmod(0o600)
    files = f"[auth]\nsecret_file = '{tmp_path / 'new'}'\nprevious_secret_file = '{tmp_path / 'old'}'"
    config = load_text(tmp_path, files)
    assert (config.auth.secret, config.auth.previous_secret) == ("new" * 11, "old" * 11)
    assert "old" * 11 not in repr(config) + to_toml(config)
    (tmp_path / "old").write_text("short")
    (found,) = problems(tmp_path, files)
    assert found.startswith("auth.previous_secret_file: 5 bytes are too few")
    (found,) = problems(tmp_path, f"[auth]\nprevious_secret = '{SECRET}'")
    assert found == "auth.previous_secret: is for a rotation: set auth.secret_file too"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://login.example.com/jwks.json", None),
        ("https://login.example.com:8443/a?b=c", None),
        ("http://127.0.0.1:8080/jwks.json", None),
        ("http://[::1]/jwks.json", None),
        ("http://login.example.com/jwks.json", "is not https"),
        ("ftp://login.example.com/jwks.json", "is not https"),
        ("file:///etc/keys", "is not a URL"),
        ("login.example.com/jwks.json", "is not a URL"),
        ("https://", "is not a URL"),
        ("https://a b/", "is not a URL"),
        ("https://a:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://ann:hunter2@login.example.com/", "has a user name or password"),
    ],
)
def test_the_url_of_keys_is_https_or_on_loopback(url: str, problem: str | None) -> None:
    try:
        config = load(None, {}, {"auth.jwks_url": url, "listen.host": "0.0.0.0"})
    except ConfigError as error:
        (found,) = error.problems
        assert problem is not None
        assert found.startswith(f"auth.jwks_url: {problem}")
        assert "hunter2" not in found
    else:
        assert problem is None
        assert not config.development


def test_keys_of_a_url_do_not_age_faster_than_they_are_fetched() -> None:
    with pytest.raises(ConfigError, match=r"^auth\.jwks_max_age_s: expected at least auth\.jwks_refresh_s \(300\)"):
        load(None, {}, {"auth.jwks_max_age_s": 60})


def test_a_file_of_keys_is_enough_to_leave_development_mode(tmp_path: Path) -> None:
    config = load_text(tmp_path, "[listen]\nhost = '0.0.0.0'\n[auth]\nkeys_file = 'keys.pem'")
    assert not config.development


def test_a_secret_is_in_no_text_that_leaves_the_process(tmp_path: Path) -> None:
    config = load(None, {"ROOMCAST_AUTH__SECRET": SECRET})
    assert SECRET not in repr(config) + to_toml(config)
    short = SECRET[:20]
    with pytest.raises(ConfigError) as caught:
        load(None, {"ROOMCAST_AUTH__SECRET": short})
    assert short not in str(caught.value)
    assert repr(AuthConfig()).startswith("AuthConfig(secret=None, secret_file=None, previous_secret=None,")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"a = ", "is not TOML"), (b"\xff", "is not UTF-8 text (byte 0)"), (None, "No such file or directory")],
)
def test_a_file_that_cannot_be_read_is_one_problem(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "roomcast.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_custom_type_joins_the_table_of_types(tmp_path: Path) -> None:
    text = "[[types]]\nid = 130\nname = 'flash_sale'\nlane = 'commerce'\nroles = ['host', 'app']"
    config = load_text(tmp_path, text)
    rule = TypeRule(Lane.COMMERCE, 4096, frozenset({Role.HOST, Role.APP}))
    assert config.message_types() == MESSAGE_TYPES | {130: rule}
    assert config.type_names()[130] == "flash_sale"
    assert config.type_names()[MessageType.ROOM_PHASE] == "room_phase"


def test_custom_types_have_their_own_numbers_and_names(tmp_path: Path) -> None:
    rows = [(130, "a"), (130, "b"), (131, "c"), (132, "c"), (133, "like")]
    text = "".join(f"[[types]]\nid = {number}\nname = '{name}'\nlane = 'paid'\n" for number, name in rows)
    assert problems(tmp_path, text) == [
        "types[0].id: 130 is given to 2 types",
        "types[1].id: 130 is given to 2 types",
        "types[2].name: c is given to 2 types",
        "types[3].name: c is given to 2 types",
        "types[4].name: like is a built-in type",
    ]


def test_names_of_roles_and_lanes_are_the_protocols() -> None:
    assert get_args(module.RoleName) == tuple(role.name.lower() for role in Role)
    assert get_args(module.LaneName) == tuple(lane.name.lower() for lane in Lane if lane is not Lane.AMBIENT)


def test_only_the_numbers_that_are_set_override_the_policy() -> None:
    assert RoomConfig().policy_overrides() == {}
    room = RoomConfig(merge=False, tick_ms=50, duplicate_window_s=0.0, max_rooms=3)
    assert room.policy_overrides() == {"merge": False, "tick_ms": 50, "duplicate_window_s": 0.0}
    unset = {field.name for field in msgspec.structs.fields(RoomConfig) if field.default is None}
    assert set(module.POLICY_FIELDS) == unset


def test_a_config_built_in_code_can_be_checked_too() -> None:
    config = Config(listen=ListenConfig(host="0.0.0.0"), link=LinkConfig(heartbeat_s=60.0))
    assert [line.split(":")[0] for line in problems_of(config)] == ["listen.host", "link.heartbeat_cut_s"]


@given(
    st.dictionaries(st.sampled_from(sorted(RoomConfig.__struct_fields__)), st.integers() | st.text() | st.booleans())
)
def test_any_values_load_or_raise_config_error(values: dict[str, Any]) -> None:
    try:
        config, found = load(None, {}, {"room": values}), []
    except ConfigError as error:
        config, found = Config(), error.problems
    assert all(line.startswith("room.") for line in found)
    assert found or tomllib.loads(to_toml(config))["room"].keys() >= values.keys()


def test_changed_settings_are_named() -> None:
    one = load(None, {}, {"auth.secret": "x" * 32})
    assert changed_settings(one, one) == []
    other = load(None, {}, {"auth.secret": "y" * 32, "link.frames_per_s": 7, "listen.port": 1})
    assert changed_settings(one, other) == ["listen.port", "link.frames_per_s", "auth.secret"]


def test_every_reloadable_setting_exists() -> None:
    config = load(None, {}, {})
    names = {
        f"{section}.{name}"
        for section in config.__struct_fields__
        for name in getattr(getattr(config, section), "__struct_fields__", ())
    }
    assert names | set(config.__struct_fields__) >= RELOADABLE
    sections = {rule: "moderation" if rule.startswith("raid_") else "room" for rule in ROOM_RULES}
    assert {f"{sections[rule]}.{rule}" for rule in ROOM_RULES} <= RELOADABLE, (
        "what one room may change, all may without a restart"
    )


def test_a_zero_that_switches_a_limit_off_is_named() -> None:
    assert without_limit(load(None, {}, {})) == []
    off = {"link": {"frames_per_s": 0}, "admission": {"per_address": 0}, "room": {"paid_budget_per_s": 0}}
    names = ["link.frames_per_s", "admission.per_address", "room.paid_budget_per_s"]
    assert without_limit(load(None, {}, off)) == names


PLAIN_ZERO = {
    "leeway_s", "drain_s", "reserved", "snapshot_danmaku", "history_entries", "history_s", "cache_tokens",
    "resume_events",
}  # fmt: skip
"""Settings where 0 is a number as any other: none of it."""


def test_every_setting_that_may_be_zero_says_what_zero_means() -> None:
    lines = to_toml(Config()).splitlines()
    settings = [
        (above, line.removeprefix("# ").split(" ")[0]) for above, line in itertools.pairwise(lines) if "(0 to " in above
    ]
    assert len(settings) > len(PLAIN_ZERO)
    silent = {name for above, name in settings if not re.search(r"\b0 (=|takes) ", above.split("(0 to ")[0])}
    assert silent == PLAIN_ZERO


def test_where_settings_came_from_is_known_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text(
        '[listen]\nport = 1\nhost = "127.0.0.1"\n[[types]]\nid = 130\nname = "wave"\nlane = "chat"\n'
        "[webhooks.questions.connect]\ndeadline_ms = 900\n"
    )
    origins = {"stale": "file"}
    config = load(file, {"ROOMCAST_LISTEN__HOST": "::1"}, {"room.max_rooms": 7}, origins)
    assert origins == {
        "listen.port": "file", "listen.host": "ROOMCAST_LISTEN__HOST", "types": "file", "webhooks.questions": "file",
        "room.max_rooms": "flag",
    }  # fmt: skip
    assert set(origins) <= set(settings_of(config))
    before = dict(origins)
    with pytest.raises(ConfigError):
        load(file, {}, {"listen.port": "many"}, origins)
    assert origins == before
