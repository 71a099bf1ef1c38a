"""Rate limits, quotas and overload."""
