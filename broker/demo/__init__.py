"""The demo of ``roomcast demo``: a scenario, real clients, two independent counts, and a terminal screen."""
