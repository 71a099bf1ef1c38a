"""The ledger that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker.config.privacy import PrivacyConfig, minutes_of
from broker.config.schema import Config, LedgerConfig
from broker.core.clock import TrustedClock
from broker.core.users.marketing import MarketingRules, QuietHours
from broker.ledger.entries import LedgerRefused
from broker.ledger.key_file import LedgerKeys
from broker.ledger.maintenance import LedgerReports, Retention
from broker.ledger.result_batch import ResultBatch
from broker.ledger.service import Ledger, LedgerLimits
from broker.ledger.store import Store
from broker.ledger.writer import Pace

__all__ = ["ledger_of", "reload_ledger"]


def ledger_of(
    config: Config,
    clock: TrustedClock,
    results: ResultBatch,
    *,
    pace: Pace | None = None,
    open_store: Callable[[Path], Store] = Store,
    reports: LedgerReports | None = None,
    kind: Callable[..., Ledger] = Ledger,
) -> Ledger | None:
    """Return the ledger of a configuration; None where it has none.

    :param pace: intervals of the writer, when not its defaults.
    :param open_store: opens the database; tests give a disk that fails.
    :param reports: what the outbox gets for what the ledger does by itself.
    :param kind: makes it, with the arguments of `Ledger`.
    """
    settings = config.ledger
    if settings.data_dir is None or not settings.is_kept:
        return None
    kept_s = settings.retention_days * 86_400
    return kind(
        Path(settings.data_dir),
        unix_ms=clock.now_ms,
        distrust=clock.distrust,
        on_open=clock.start,
        trusted=clock.trusted,
        retention=Retention(
            entries_s=kept_s,
            keys_s=kept_s,
            idle_rooms_s=settings.room_idle_days * 86_400,
            outbox_s=settings.outbox_days * 86_400,
            max_bytes=settings.max_bytes,
        ),
        limits=LedgerLimits(settings.queue_items, settings.queue_bytes),
        pace=pace,
        open_store=open_store,
        reports=reports,
        close_timeout_s=config.link.drain_limit_s / 3,
        results=results,
        keys=_keys_of(settings),
        marketing=marketing_rules_of(config.privacy),
    )


def reload_ledger(ledger: Ledger | None, config: Config) -> bool:
    """Take the keys and the rules of marketing of a configuration that is read again; return whether the keys are other
    ones. FileError, or ValueError, with nothing changed, where the keys cannot be used."""
    if ledger is None:
        return False
    try:
        has_other_keys = ledger.use_keys(_keys_of(config.ledger))
    except LedgerRefused as error:
        raise ValueError(f"ledger.key_file: {error}") from error
    ledger.use_marketing(marketing_rules_of(config.privacy))
    return has_other_keys


def marketing_rules_of(privacy: PrivacyConfig) -> MarketingRules:
    """Return the rules of marketing of a configuration."""
    minutes = None if privacy.quiet_hours is None else minutes_of(privacy.quiet_hours)
    quiet = None if minutes is None else QuietHours(*minutes, privacy.quiet_utc_offset_min)
    return MarketingRules(privacy.marketing_per_hour, privacy.marketing_per_day, quiet)


def _keys_of(settings: LedgerConfig) -> LedgerKeys | None:
    return None if settings.key_file is None else LedgerKeys.read(settings.key_file)
