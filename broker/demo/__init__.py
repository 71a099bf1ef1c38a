"""The show of ``roomcast demo``: a script, a cast of real clients, two independent ways of counting, and a picture."""
