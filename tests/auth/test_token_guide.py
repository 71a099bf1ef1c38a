"""The programs of the guide on tokens make tokens that the broker accepts, and all of them the same ones."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from broker.auth.grants import RoomGrant
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from protocol.codes import Role
from tests.support.keys import ALGORITHMS, key_pair, pem, private_pem
from tests.support.tokens import SECRET, Clock, sign

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "broker" / "guides" / "tokens.md").read_text(encoding="utf-8")
END = 1_800_000_000
CLAIMS = {
    "sub": "ann", "name": "安安", "aud": "roomcast", "exp": END, "rooms": [{"pattern": "live-*", "role": "viewer"}],
}  # fmt: skip
GOLDEN = sign(b'{"alg":"HS256","typ":"JWT"}', msgspec.json.encode(CLAIMS))


def program(language: str, clock: str) -> str:
    """The program of the guide, with the golden time in place of the present one."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)[0]
    assert found.count(clock) == 1
    return str(found).replace(clock, str(END - 3600))


def output(command: list[str], folder: Path) -> str:
    (folder / "secret").write_text(SECRET + "\n")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=True, encoding="utf-8"
    )
    return done.stdout.strip()


def test_no_ticket_is_given_in_development_mode() -> None:
    auth = Authenticator(AuthConfig(), Clock())
    assert [auth.ticket(auth.verify(token)) for token in (None, "dev:ann", "dev:ann:app")] == [("", 0)] * 3


def test_the_golden_token_of_the_guide_is_accepted() -> None:
    assert f"```\n{GOLDEN}\n```" in GUIDE
    grant = Authenticator(AuthConfig(secret=SECRET), Clock(END - 60)).verify(GOLDEN)
    assert (grant.user_id, grant.name, grant.expires_at) == ("ann", "安安", END)
    assert grant.rooms == (RoomGrant("live-*", Role.VIEWER),)


@pytest.mark.integration
def test_the_program_in_python_makes_it(tmp_path: Path) -> None:
    # Not token.py: `token` is a module of the standard library.
    (tmp_path / "make.py").write_text(program("python", "int(time.time())"), encoding="utf-8")
    assert output([sys.executable, "-X", "utf8", "make.py"], tmp_path) == GOLDEN


@pytest.mark.integration
def test_the_program_with_a_private_key_makes_a_token_that_its_public_key_verifies(tmp_path: Path) -> None:
    (tmp_path / "private.pem").write_text(private_pem(key_pair("EdDSA")))
    (tmp_path / "public.pem").write_text(pem(key_pair("EdDSA")))
    text = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "make.py").write_text(text.replace("int(time.time())", str(END - 3600)), encoding="utf-8")
    auth = Authenticator(AuthConfig(keys_file=str(tmp_path / "public.pem")), Clock(END - 60))
    assert auth.verify(output([sys.executable, "make.py"], tmp_path)).user_id == "ann"


def test_every_algorithm_of_the_guide_is_one() -> None:
    rows = re.findall(r"^\| (\w+) \| .+ \| about \d+ us \|$", GUIDE, re.MULTILINE)
    assert rows == ["HS256", *ALGORITHMS]


@pytest.mark.integration
def test_the_program_in_node_makes_it(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    (tmp_path / "token.js").write_text(program("js", "Math.floor(Date.now() / 1000)"), encoding="utf-8")
    assert output([node, "token.js"], tmp_path) == GOLDEN


def test_the_text_in_go_signs_the_same_bytes() -> None:
    text = program("go", "time.Now().Unix()")
    fields = re.findall(r"^\t(\w+) +(?:string|int64|\[\]Room) +`json:\"(\w+)\"`$", text, re.MULTILINE)
    assert [name for _, name in fields] == [*CLAIMS["rooms"][0], *CLAIMS]  # type: ignore[index]
    assert all(field.lower() == name for field, name in fields), "encoding/json writes fields in this order"
    assert '`{"alg":"HS256","typ":"JWT"}`' in text
    assert 'Claims{"ann", "安安", "roomcast", now + 3600, rooms}' in text
    assert '[]Room{{"live-*", "viewer"}}' in text


@pytest.mark.integration
@pytest.mark.slow
def test_the_program_in_go_makes_it(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    text = program("go", "time.Now().Unix()").replace('\t"time"\n', "").replace("now := ", "var now int64 = ")
    (tmp_path / "token.go").write_text(text, encoding="utf-8")
    assert output([go, "run", "token.go"], tmp_path) == GOLDEN


def test_every_claim_of_the_guide_is_one_and_every_required_one_is_called_so() -> None:
    rows = re.findall(r"^\| (`.+?`(?:, `\w+`)*) \| (\w+) \|", GUIDE, re.MULTILINE)
    required = {name for names, need in rows if need == "required" for name in re.findall(r"`(\w+)`", names)}
    assert required == {"sub", "aud", "exp", "rooms"}
    named = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert named == required | {"role", "name", "tenant", "iss", "nbf", "iat", "account_created", "tags", "jti"}
    assert ", ".join(f"`{role.name.lower()}`" for role in Role) in GUIDE
