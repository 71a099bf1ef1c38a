"""Webhooks: signed requests to the platform, of events and of questions."""
