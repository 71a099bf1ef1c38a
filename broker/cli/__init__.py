"""The commands of ``roomcast``, one module each, imported only when they run (`broker.cli.main`)."""
