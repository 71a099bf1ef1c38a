"""roomcast's bench: load, measurement, self-checks and reports. Start with ``python -m bench`` or ``roomcast
bench``."""
