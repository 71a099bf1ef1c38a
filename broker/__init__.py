"""The roomcast broker."""
