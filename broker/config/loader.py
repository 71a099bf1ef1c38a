"""Conversion of layers of settings into one checked struct, and of a struct into commented TOML.

Knows nothing about roomcast: it takes any msgspec struct whose fields are leaves, nested structs (a
TOML table each) or tuples of structs (an array of tables). A layer is a table of values: the file, the
environment, the flags. Later layers win, key by key. Every value is checked where it comes in, so that
one run reports all problems, each with its full path, its rule and where it came from.

The field itself says what it is: its docstring (the string below it) becomes the comment, the bounds in
`msgspec.Meta` become the rule, ``examples`` replaces a pattern in messages, and ``extra={"secret": True}`` keeps the
value out of messages and output.

It reads neither files nor the environment, and never prints a secret.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

__all__ = ["Layers", "Problem", "field_docs", "nested", "secret_paths", "write_toml"]

S = TypeVar("S", bound=msgspec.Struct)

_SHOWN_CHARS = 60
_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


_HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Python maps bytes that are not UTF-8 to these code points, which no encoder takes."""
_SERVICE_VARIABLE = re.compile(
    r"([A-Z0-9_]+?)_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)


class Problem(NamedTuple):
    """One error: the full path of the key, the rule it breaks, and where the value came from (if not the file)."""

    path: str
    rule: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}" + (f" (from {self.origin})" if self.origin else "")


class _Leaf(NamedTuple):
    """A field's type without its wrapping (optional, Annotated), and what its Meta objects say."""

    bare: Any
    optional: bool
    limits: tuple[str, ...]
    example: str
    secret: bool


def _leaf(kind: Any) -> _Leaf:
    optional, metas = False, []
    while True:
        if get_origin(kind) is Annotated:
            metas += [m for m in kind.__metadata__ if isinstance(m, msgspec.Meta)]
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            optional = True
            (kind,) = (member for member in get_args(kind) if member is not NoneType)
        else:
            break
    return _Leaf(
        kind,
        optional,
        tuple(text for m in metas for text in _limits(m)),
        next((str(m.examples[0]) for m in metas if m.examples), ""),
        any(bool(m.extra and m.extra.get("secret")) for m in metas),
    )


def _limits(meta: msgspec.Meta) -> Iterator[str]:
    if meta.ge is not None and meta.le is not None:
        yield f"{_plain(meta.ge)} to {_plain(meta.le)}"
    elif meta.ge is not None:
        yield f"at least {_plain(meta.ge)}"
    if meta.min_length is not None or meta.max_length is not None:
        low, high = meta.min_length, meta.max_length
        yield f"length at least {low}" if high is None else f"length {low or 0} to {high}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _element_struct(kind: Any) -> Any:
    """The struct of a ``tuple[Struct, ...]``, else None."""
    if get_origin(kind) is tuple and _is_struct(get_args(kind)[0]):
        return get_args(kind)[0]
    return None


def _paths(kind: type[msgspec.Struct], prefix: str = "") -> dict[str, Any]:
    """Every leaf of ``kind`` by its dotted path."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        path = f"{prefix}{field.name}"
        if _is_struct(field.type):
            found.update(_paths(field.type, f"{path}."))
        else:
            found[path] = field.type
    return found


def secret_paths(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Return the dotted paths of the fields of ``kind`` that are secrets."""
    return frozenset(path for path, field in _paths(kind).items() if _leaf(field).secret)


class Layers(Generic[S]):
    """Collector of values for the struct ``kind``, layer after layer, with every problem in ``problems`` and, by dotted
    name of a setting that is not the default, where its value came from in ``origins`` ("file" where no origin was
    given); the settings of an array of tables have that of the array."""

    def __init__(self, kind: type[S]) -> None:
        self.problems: list[Problem] = []
        self.origins: dict[str, str] = {}
        self._kind = kind
        self._paths = _paths(kind)
        self._tree: dict[str, Any] = {}

    def add(self, table: Mapping[str, Any], origin: str = "", *, text_values: bool = False) -> None:
        """Add ``table`` as the next layer.

        With ``text_values`` strings are read as numbers, switches (true/false/yes/no/on/off/1/0) or
        comma-separated lists where the field wants one; without, TOML's own types are demanded.
        """
        self._merge(self._kind, table, "", self._tree, origin, text_values)

    def add_environment(self, env: Mapping[str, str], prefix: str, ignored: frozenset[str]) -> None:
        """Add the variables that begin with ``prefix`` as the next layer: ``PREFIX_LISTEN__PORT`` is ``listen.port``.

        A variable with the prefix that names no setting and is not ``ignored`` is a problem: it is a typing
        error that would otherwise be silently without effect. The variables that Kubernetes sets for a service of that
        name (``PREFIX_PORT=tcp://...`` and those that go with it) are passed over.
        """
        names = {prefix + path.replace(".", "__").upper(): path for path in self._paths}
        for variable in sorted(env):
            if not variable.startswith(prefix) or variable in ignored:
                continue
            path = names.get(variable)
            if path is None and _is_service_variable(variable, prefix, env):
                continue
            if path is None:
                hint = _nearest(variable, list(names))
                self.problems.append(Problem(variable, "unknown variable" + _did_you_mean(hint)))
                continue
            self.add(nested(path, env[variable]), variable, text_values=True)

    def build(self) -> S:
        """The struct from all values that passed; defaults stand in for the others."""
        return msgspec.convert(self._tree, self._kind)

    def _merge(
        self, kind: Any, table: Mapping[str, Any], prefix: str, into: dict[str, Any], origin: str, text_values: bool
    ) -> None:
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        for key, value in table.items():
            path = f"{prefix}{key}"
            if key not in fields:
                self.problems.append(Problem(path, self._unknown(key, prefix, list(fields)), origin))
            elif _is_struct(fields[key]):
                if isinstance(value, Mapping):
                    inner = into.setdefault(key, {})
                    self._merge(fields[key], value, f"{path}.", inner, origin, text_values)
                else:
                    self.problems.append(Problem(path, f"expected a table, got {_shown(value)}", origin))
            else:
                self._put(fields[key], path, key, value, into, origin, text_values)

    def _put(
        self, kind: Any, path: str, key: str, value: Any, into: dict[str, Any], origin: str, text_values: bool
    ) -> None:
        leaf = _leaf(kind)
        if not _is_unicode(value):
            self.problems.append(Problem(path, "expected UTF-8 text", origin))
            return
        try:
            if text_values and isinstance(value, str):
                value = _from_text(leaf, value)
            element = _element_struct(leaf.bare)
            if element is None:
                into[key] = msgspec.convert(value, kind)
                if path in self._paths:
                    self.origins[path] = origin or "file"
                return
        except msgspec.ValidationError as error:
            path, rule = _reworded(str(error), path, value, leaf)
            self.problems.append(Problem(path, rule, origin))
            return
        if not isinstance(value, (list, tuple)):
            self.problems.append(Problem(path, f"expected an array of tables, got {_shown(value)}", origin))
            return
        items = [self._item(element, f"{path}[{index}]", item, origin) for index, item in enumerate(value)]
        into[key] = [item for item in items if item is not None]
        if path in self._paths:
            self.origins[path] = origin or "file"

    def _item(self, kind: Any, path: str, item: Any, origin: str) -> dict[str, Any] | None:
        """One table of an array of tables, or None if anything in it is wrong."""
        if not isinstance(item, Mapping):
            self.problems.append(Problem(path, f"expected a table, got {_shown(item)}", origin))
            return None
        before = len(self.problems)
        kept: dict[str, Any] = {}
        self._merge(kind, item, f"{path}.", kept, origin, False)
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in item:
                self.problems.append(Problem(f"{path}.{field.name}", "is required", origin))
        return kept if len(self.problems) == before else None

    def _unknown(self, key: str, prefix: str, siblings: list[str]) -> str:
        """Return the text for an unknown key: a near key of the same table, a near one elsewhere, else the list."""
        near = _nearest(key, siblings)
        if near:
            return "unknown key" + _did_you_mean(f"{prefix}{near}")
        last = {path.rpartition(".")[2]: path for path in self._paths}
        near = _nearest(key, list(last))
        if near:
            return "unknown key" + _did_you_mean(last[near])
        return "unknown key; known here: " + ", ".join(siblings)


def _is_unicode(value: Any) -> bool:
    """Return False for a string that was not UTF-8 in the environment or on the command line."""
    texts = value if isinstance(value, (list, tuple)) else (value,)
    return not any(isinstance(text, str) and _HALF_PAIR.search(text) for text in texts)


def _is_service_variable(variable: str, prefix: str, env: Mapping[str, str]) -> bool:
    """Whether Kubernetes set ``variable`` for a service whose name begins with ``prefix``, as Docker links did.

    It sets all of a service's variables, so one counts only beside ``<SERVICE>_SERVICE_HOST`` or a port that is a URL.
    """
    service = _SERVICE_VARIABLE.fullmatch(variable)
    if service is None:
        return False
    name = service[1]
    port = env.get(f"{name}_PORT", "")
    return f"{name}_".startswith(prefix) and (
        f"{name}_SERVICE_HOST" in env or port.startswith(("tcp://", "udp://", "sctp://"))
    )


def nested(path: str, value: Any) -> dict[str, Any]:
    """The layer that says ``path = value``: for ``listen.port`` and 1, ``{"listen": {"port": 1}}``."""
    *parents, last = path.split(".")
    layer: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        layer = {parent: layer}
    return layer


def _from_text(leaf: _Leaf, text: str) -> Any:
    """Return the value of a string from the environment or a flag for this field; unchanged if it is no such value."""
    if get_origin(leaf.bare) is tuple:
        if text.lstrip().startswith("["):
            try:
                return tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                return text
        return [part.strip() for part in text.split(",") if part.strip()]
    if leaf.bare is bool:
        return _SWITCHES.get(text.strip().lower(), text)
    if leaf.bare in (int, float):
        try:
            return msgspec.convert(text.strip(), leaf.bare, strict=False)
        except msgspec.ValidationError:
            return text
    return text


def _reworded(message: str, path: str, value: Any, leaf: _Leaf) -> tuple[str, str]:
    """msgspec's message in this project's words: (full path, rule and the value that broke it)."""
    message, _, where = message.partition(" - at `$")
    where = where.rstrip("`")
    if where.startswith("[") and where.endswith("]") and where[1:-1].isdigit():
        path, value, leaf = path + where, value[int(where[1:-1])], _leaf(get_args(leaf.bare)[0])
    if get_origin(leaf.bare) is Literal and isinstance(value, str):
        options = [str(option) for option in get_args(leaf.bare)]
        expected = "expected one of " + ", ".join(options)
        hint = _did_you_mean(_nearest(value, options))
    else:
        expected = message.partition(", got ")[0].replace("`", "").replace(" | null", "")
        expected, hint = expected[0].lower() + expected[1:], ""
        if leaf.example and " matching regex " in expected:
            expected = f"expected a string such as {leaf.example}"
    return path, f"{expected}, got {'a secret that is not shown' if leaf.secret else _shown(value)}{hint}"


def _shown(value: Any) -> str:
    """``value`` as text of bounded length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def _nearest(word: str, known: list[str]) -> str:
    import difflib  # only a mistake needs it

    return next(iter(difflib.get_close_matches(word, known, 1, 0.7)), "")


def _did_you_mean(word: str) -> str:
    return f"; did you mean {word}?" if word else ""


# ---- writing ------------------------------------------------------------------------------------


def write_toml(struct: msgspec.Struct, *, comments: bool = True, in_force: Mapping[str, str] | None = None) -> str:
    """``struct`` as TOML that `Layers.add` reads back to an equal struct.

    Fields that are None cannot be written in TOML: with ``comments`` they stand as a comment, with what ``in_force``
    says of them by dotted path; else they are left out. Secrets are never written. Cost is that of the text; meant for
    people, not for hot paths.
    """
    lines = [line for part in _tables(struct, comments, "", in_force or {}) if part for line in (*part, "")]
    return "\n".join(lines).rstrip() + "\n"


def _tables(struct: msgspec.Struct, comments: bool, prefix: str, in_force: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the lines of each table below ``struct``, a nested one after the one that it is in."""
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        leaf = _leaf(field.type)
        path = f"{prefix}{field.name}"
        element = _element_struct(leaf.bare)
        if _is_struct(field.type):
            doc = [f"# {line}".rstrip() for line in _doc(field.type)] if comments else []
            lines = [*doc, f"[{path}]", *_table(value, comments, f"{path}.", in_force)]
            # TOML needs no line for a table that has only tables.
            yield lines if len(lines) > len(doc) + 1 else doc
            yield from _tables(value, comments, f"{path}.", in_force)
        elif element is not None:
            if comments and not value:
                yield [
                    f"# {field_docs(type(struct)).get(field.name, '')}".rstrip(),
                    f"# [[{path}]]",
                    *(f"# {inner.name}: {_comment(element, inner)}" for inner in msgspec.structs.fields(element)),
                ]
            for item in value:
                yield [f"[[{path}]]", *_table(item, comments)]


def _table(
    struct: msgspec.Struct, comments: bool, prefix: str = "", in_force: Mapping[str, str] | None = None
) -> Iterator[str]:
    for field in msgspec.structs.fields(type(struct)):
        leaf = _leaf(field.type)
        if _is_struct(field.type) or _element_struct(leaf.bare) is not None:
            continue
        value = getattr(struct, field.name)
        hidden = value is not None and leaf.secret
        if comments:
            yield f"# {_comment(type(struct), field)}".rstrip()
        if value is not None and not hidden:
            yield f"{field.name} = {_value(value)}"
        elif comments:
            of = (in_force or {}).get(f"{prefix}{field.name}", "")
            yield f"# {field.name} is {'set, and not shown' if hidden else 'not set'}{of and f': {of}'}"


def _doc(kind: type[msgspec.Struct]) -> list[str]:
    return [line.strip() for line in (kind.__doc__ or "").strip().splitlines()]


@functools.cache
def field_docs(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstring of each field of ``kind``, joined to one line; empty where the source is not installed."""
    import ast  # only printing needs these two
    import inspect

    try:
        (body,) = ast.parse(inspect.getsource(kind)).body
    except (OSError, SyntaxError, ValueError):
        return {}
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, after in itertools.pairwise(body.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    docs[statement.target.id] = " ".join(text.split())
    return docs


def _comment(kind: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    leaf = _leaf(field.type)
    rule = list(leaf.limits)
    if get_origin(leaf.bare) is Literal:
        rule.append("one of " + ", ".join(str(option) for option in get_args(leaf.bare)))
    if field.required:
        rule.append("required")
    elif field.default is not msgspec.NODEFAULT and field.default is not None:
        rule.append(f"default {_value(field.default)}")
    return field_docs(kind).get(field.name, "") + (f" ({'; '.join(rule)})" if rule else "")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_value(element) for element in value) + "]"
    return repr(value)
