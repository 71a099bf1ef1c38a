"""Files that people write: the same text, whatever editor, shell or system saved it, and one module that reads them."""

from __future__ import annotations

import ast
import os
import shlex
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.direct import read_values
from broker.cli.main import main
from broker.config.files import FileError, clean_text, openssl_path, read_text_of, text_of, user_path
from broker.config.schema import ConfigError, load
from broker.net.tls import server_context
from tests.support.poller import make_credentials

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"
MARK = b"\xef\xbb\xbf"

MACHINE_WRITTEN = {
    "broker/auth/api_key_file.py": "a directory, to lock it",
    "broker/auth/ticket_keys.py": "the broker's own keys: random bytes",
    "broker/cli/doctor.py": "/proc",
    "broker/cli/serve.py": "/dev/null, for writing",
    "broker/config/files.py": "the one that reads files of people",
    "broker/telemetry/overview.py": "/proc",
    "broker/http/page_files.py": "the pages of this installation",
    "broker/engine/scripts.py": "the scripts of this installation",
    "broker/ledger": "the broker's own files",
    "bench/disk.py": "written by the bench",
    "bench/machine.py": "/proc",
    "bench/micro/conversations.py": "/dev/null, for writing",
    "bench/micro/redis_process.py": "/proc",
    "bench/micro/harness.py": "/proc",
    "bench/micro/nodes.py": "/proc",
    "bench/micro/result.py": "/proc",
    "bench/process.py": "written by the bench",
}
"""Modules, or folders of them, that open files which no person writes."""
READERS = {"open", "read_text", "read_bytes", "fdopen", "load_cert_chain", "load_verify_locations"}
OPENERS = {"Path", "io", "os", "path", "name", "builtins"}


def reads(path: Path) -> Iterator[int]:
    """Lines of ``path`` that open a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "open":
                yield node.lineno
            elif isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
                of = node.func.value
                # Rooms, valves and links open too: only a call on a path, or on what makes one, reads a file.
                if (
                    node.func.attr != "open"
                    or isinstance(of, (ast.Call, ast.BinOp))
                    or (isinstance(of, ast.Name) and of.id in OPENERS)
                ):
                    yield node.lineno


def test_no_other_module_opens_a_file_of_a_person() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for package in ("broker", "bench", "protocol")
        for path in (ROOT / package).rglob("*.py")
        for line in reads(path)
        if not any(str(path.relative_to(ROOT)).startswith(known) for known in MACHINE_WRITTEN)
    }
    # OpenSSL reads certificates and keys itself, from a path that `openssl_path` gives.
    found -= {name for name in found if name.startswith("broker/net/tls.py")}
    # The client stands without the broker: it reads the authority's certificate itself, by the same rules.
    found -= {name for name in found if name.startswith("protocol/clients/transports.py")}
    # So does the engine's link, which knows no configuration: who makes its context gives it `openssl_path`.
    found -= {name for name in found if name.startswith("broker/engine/link.py")}
    assert found == set()
    assert len(list(reads(ROOT / "broker/net/tls.py"))) == 1


LINES = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=9), max_size=6)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_line_ending_with_and_without_a_mark_gives_the_same_text(lines: list[str], end: str, marked: bool) -> None:
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = lines[0].lstrip("\ufeff")
    data = (MARK if marked else b"") + end.join(lines).encode()
    assert text_of(data, "list") == "\n".join(lines)
    assert clean_text(end.join(lines)) == "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "words", "is_text"),
    [
        ("a = 1".encode("utf-16"), "FILE is UTF-16: save it as UTF-8", True),
        ("a = 1".encode("utf-16-be", "strict"), None, True),
        (b"\xfe\xff\0a", "FILE is UTF-16: save it as UTF-8", True),
        ("é".encode("latin-1"), "FILE is not UTF-8 text (byte 0)", False),
        (None, "cannot read FILE: No such file or directory", True),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes | None, words: str | None, is_text: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    if words is None:
        assert "\0" in read_text_of(file)
        return
    with pytest.raises(FileError) as caught:
        read_text_of(file)
    assert (str(caught.value), caught.value.is_text) == (words.replace("FILE", str(file)), is_text)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def saved(text: str, style: str, *, trailing: bytes = b" ") -> bytes:
    """``text`` as the editors of other systems save it; ``trailing``: what stands at the end of each line."""
    if style == "windows":
        return MARK + text.encode().replace(b"\n", trailing + b"\r\n")
    return text.encode().replace(b"\n", b"\r") if style == "mac" else text.encode()


STYLES = ["plain", "windows", "mac"]
LISTS = [
    'user,code\nann,C-17\nbob,"two\nlines"\n',
    '{"user": "ann", "code": "C-17"}\n{"user": "bob", "code": "two\\nlines"}\n',
]


@pytest.mark.parametrize("style", STYLES)
def test_every_file_of_the_broker_may_be_saved_by_any_editor_and_named_with_a_tilde(style: str, home: Path) -> None:
    credentials = make_credentials()
    for name, pem in (("chain.pem", credentials.cert), ("key.pem", credentials.key)):
        # OpenSSL does not know the line ends of old Macs.
        (home / name).write_bytes(saved(pem.read_text(), "plain" if style == "mac" else style))
    (home / "secret").write_bytes(saved(SECRET + "\n", style))
    (home / "roomcast.toml").write_bytes(
        saved(
            "[auth]\nsecret_file = '~/secret'\n[ledger]\ndata_dir = '~/data'\n"
            "[listen]\ntls_cert = '~/chain.pem'\ntls_key = '~/key.pem'\n",
            style,
        )
    )
    config = load(user_path("~/roomcast.toml"), {})
    assert config.auth.secret == SECRET
    assert config.ledger.directory(None) == home / "data"
    assert config.listen.tls_cert is not None
    assert config.listen.tls_key is not None
    assert isinstance(server_context(config.listen.tls_cert, config.listen.tls_key), ssl.SSLContext)
    checked = CliRunner().invoke(main, ["check-config"], env={"ROOMCAST_CONFIG": "~/roomcast.toml"})
    assert checked.exit_code == 0, checked.output
    made = CliRunner().invoke(main, ["token", "--user", "ann", "--secret-file", "~/secret"], env={})
    assert made.output.count(".") == 2


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("text", LISTS)
@pytest.mark.parametrize("given_as", ["file", "standard input"])
def test_a_list_of_messages_may_be_saved_by_any_editor(text: str, style: str, given_as: str, home: Path) -> None:
    data = saved(text, style, trailing=b"")
    (home / "list").write_bytes(data)
    arguments = ["direct", "--batch", "b", "--template", "{nothing}", "--values"]
    if given_as == "file":
        result = CliRunner().invoke(main, [*arguments, "~/list"])
        name = "~/list"
    else:
        result = CliRunner().invoke(main, [*arguments, "-"], input=data)
        name = "standard input"
    # The list was read: only the template is at fault, in the line of the first user.
    line = 2 if text.startswith("user") else 1
    assert result.exit_code == 2
    assert f"{name}, line {line}: {{nothing}} has no value" in " ".join(result.output.split())
    with (home / "list").open(newline="", encoding="utf-8") as file:
        assert read_values(file, "list").values["bob"]["code"] == "two\nlines"


def test_a_file_without_a_mark_is_given_to_openssl_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(b"key")
    with openssl_path(file) as path:
        assert path == str(file)
    file.write_bytes(MARK + b"key")
    with openssl_path(file) as path:
        assert Path(path).read_bytes() == b"key"
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    "section", [{"auth": {"secret_file": "a\0b"}}, {"listen": {"tls_cert": "\0", "tls_key": "\0"}}]
)
def test_a_name_that_no_file_can_have_is_one_problem(section: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ConfigError, match="null byte"):
        load(None, {}, section)


def test_a_tilde_of_an_unknown_user_stays_in_the_path() -> None:
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("secret", [SECRET + "\n", " " + SECRET, SECRET + "\r"])
def test_a_secret_with_white_space_at_an_end_is_refused_outside_a_file(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"auth\.secret: has white space at an end"):
        load(None, {"ROOMCAST_AUTH__SECRET": secret})


@pytest.mark.parametrize("name", ["AUTH__AUDIENCE", "AUTH__SECRET", "LEDGER__DATA_DIR", "AUTH__GUEST_ACCESS"])
def test_a_variable_that_is_not_utf_8_is_one_problem(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {f"ROOMCAST_{name}": "x" * 40 + "\udcff"})
    path = name.lower().replace("__", ".")
    assert caught.value.problems == [f"{path}: expected UTF-8 text (from ROOMCAST_{name})"]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user of the machine may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o444])
@pytest.mark.parametrize("setting", ["auth.secret_file", "auth.secret", "listen.tls_key"])
def test_a_secret_that_other_users_can_read_is_refused_with_the_command_that_mends_it(
    setting: str, mode: int, open_directory: Path
) -> None:
    credentials = make_credentials()
    secret, key, config = (open_directory / name for name in ("a secret", "key.pem", "roomcast.toml"))
    secret.write_text(SECRET)
    key.write_bytes(credentials.key.read_bytes())
    config.write_text(
        (f"[auth]\nsecret = '{SECRET}'\n" if setting == "auth.secret" else f"[auth]\nsecret_file = '{secret}'\n")
        + f"[listen]\ntls_cert = '{credentials.cert}'\ntls_key = '{key}'\n"
    )
    for each in (secret, key, config):
        each.chmod(0o600)
    assert load(config, {}).auth.secret == SECRET
    exposed = {"auth.secret_file": secret, "auth.secret": config, "listen.tls_key": key}[setting]
    exposed.chmod(mode)
    rule = f"{setting}: {exposed} can be read by other users of this machine: `chmod 600 {shlex.quote(str(exposed))}`"
    with pytest.raises(ConfigError) as refused:
        load(config, {})
    assert refused.value.problems == [rule]
    open_directory.chmod(0o700)
    assert load(config, {}).auth.secret == SECRET, "no other user can reach the file"


def test_a_configuration_without_secrets_may_be_read_by_all_users(open_directory: Path) -> None:
    config = open_directory / "roomcast.toml"
    config.write_text("[listen]\nport = 1\n")
    config.chmod(0o644)
    assert load(config, {}).listen.port == 1
