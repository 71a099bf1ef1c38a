"""``roomcast webhooks``: endpoints and their events, through the control API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from broker.cli.call import ask, key_option, url_option

__all__ = ["webhooks"]

PAGE = 1000
_STATES = {
    "closed": "delivering",
    "open": "paused after failures",
    "trial": "trying one event",
    "disabled": "disabled: it answered 410",
}
"""What the states of an endpoint's circuit breaker mean."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def webhooks() -> None:
    """Webhooks of a running broker: the state of each endpoint, and dead letters: events that were given up."""


@webhooks.command("list")
@click.option("--endpoint", help="Events of this endpoint only.")
@click.option("--waiting", is_flag=True, help="Events that still wait, in place of dead letters.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(0, PAGE), help="Most events to list.")
@url_option
@key_option
def list_webhooks(endpoint: str | None, waiting: bool, limit: int, url: str, key_file: str | None) -> None:
    """Print every endpoint, then the oldest dead letters."""
    endpoints = ask(url, key_file, "hooks.list", {})["items"]
    if not endpoints:
        click.echo("no endpoints: [[webhooks.endpoints]] of the configuration names them")
    for each in endpoints:
        if endpoint in (None, each["name"]):
            failure = f", last failure: {each['last_failure']}" if each["last_failure"] else ""
            state = _STATES.get(each["state"], each["state"])
            click.echo(
                f"{each['name']}  {each['origin']}  {state}  waiting {each['waiting']}"
                f" (oldest {each['oldest_ms'] / 1000:.0f} s)  dead {each['dead']}  delivered {each['delivered']}"
                f"  failures {each['failures']}{failure}"
            )
    if limit:
        page: dict[str, Any] = {"state": "waiting" if waiting else "dead", "limit": limit}
        if endpoint is not None:
            page["endpoint"] = endpoint
        for each in ask(url, key_file, "hooks.deliveries", page)["items"]:
            at = datetime.fromtimestamp(each["created_at_ms"] / 1000, UTC).isoformat(timespec="seconds")
            click.echo(
                f"{each['id']}  {at}  {each['endpoint']}  {each['type']}  {each['room'] or '-'}"
                f"  attempts {each['attempts']}  {each['reason']}"
            )


@webhooks.command()
@click.argument("endpoint")
@click.option("--note", default="", help="Text in the event.")
@url_option
@key_option
def test(endpoint: str, note: str, url: str, key_file: str | None) -> None:
    """Send ENDPOINT a signed test event, and print what it answered. Exit status 1 where that was not 2xx."""
    found = ask(url, key_file, "hooks.test", {"endpoint": endpoint, "note": note})
    click.echo(f"{found['id']}  {found['detail']}  {found['took_ms']} ms")
    if not 200 <= found["status"] <= 299:
        raise SystemExit(1)


@webhooks.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--endpoint", help="All dead letters of this endpoint, in place of IDS; enables it if it was gone.")
@click.option("--since-ms", default=0, help="Of those, only what was written at this time or later.")
@url_option
@key_option
def retry(ids: tuple[int, ...], endpoint: str | None, since_ms: int, url: str, key_file: str | None) -> None:
    """Send dead letters once more, by the numbers that `list` prints."""
    if bool(ids) == (endpoint is not None):
        raise click.UsageError("name IDS, or --endpoint for all of one")
    arguments: dict[str, Any] = {"ids": ids} if ids else {"endpoint": endpoint, "since_ms": since_ms}
    click.echo(f"retried {ask(url, key_file, 'hooks.retry', arguments)['retried']}")


@webhooks.command()
@click.argument("ids", nargs=-1, type=int, required=True)
@url_option
@key_option
def drop(ids: tuple[int, ...], url: str, key_file: str | None) -> None:
    """Forget events, by the numbers that `list` prints."""
    click.echo(f"dropped {ask(url, key_file, 'hooks.drop', {'ids': ids})['dropped']}")
