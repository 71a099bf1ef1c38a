"""How many connections a process may hold: what is configured, and what its file descriptors allow."""

from __future__ import annotations

import errno
import resource
from contextlib import suppress

import structlog

from broker.config.schema import AdmissionConfig, Config
from broker.core.net.connection_limits import ConnectionLimitSettings

__all__ = ["MAX_DESCRIPTORS", "connection_limit", "limits_of"]

log = structlog.get_logger("roomcast.server")

MIN_CONNECTIONS = 64
"""A broker that could hold fewer, for want of descriptors, does not serve."""
FEW_CONNECTIONS = 1000
"""A broker that can hold fewer, for want of descriptors, warns."""
MAX_DESCRIPTORS = 1 << 20
"""Descriptors where the process has no limit: fs.nr_open of Linux."""


def connection_limit(config: Config) -> int:
    """Connections this process may hold: the configured number, or what the descriptors allow less the reserve.

    Raises the soft limit of descriptors to the hard one first, and warns if they do not suffice for the configured
    number. OSError (EMFILE) if they do not even suffice for the reserve and `MIN_CONNECTIONS`, or the fewer that are
    configured.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # an endless hard limit is above what the kernel gives
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    descriptors = MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    reserve, wanted = config.admission.descriptor_reserve, config.admission.max_connections
    if config.api.listen is not None:
        reserve += config.api.max_connections
    needed = reserve + min(wanted or MIN_CONNECTIONS, MIN_CONNECTIONS)
    if descriptors < needed:
        raise OSError(
            errno.EMFILE,
            f"{descriptors} file descriptors are too few, {needed} are needed (admission.descriptor_reserve is"
            f" {reserve}): raise the limit (`ulimit -n`, LimitNOFILE= of systemd, --ulimit nofile= of a container)",
        )
    most = descriptors - reserve
    enough = wanted or FEW_CONNECTIONS
    if most < enough:
        remedy = f"raise the limit to {reserve + enough}"
        log.warning("few file descriptors", descriptors=descriptors, connections=most, wanted=enough, remedy=remedy)
    return min(wanted or most, most)


def limits_of(admission: AdmissionConfig, max_connections: int) -> ConnectionLimitSettings:
    """Return the limits of connections of a configuration, with ``max_connections`` as the descriptors allow it."""
    return ConnectionLimitSettings(
        max_connections=max_connections,
        per_address=admission.per_address,
        accept_per_s=admission.accept_per_s,
        unauthenticated_share=admission.unauthenticated_share,
        address_share=admission.address_share,
        failed_logins_per_minute=admission.failed_logins_per_minute,
    )
