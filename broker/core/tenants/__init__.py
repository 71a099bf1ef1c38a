"""Tenants: the names of what belongs to one, and its quotas."""
